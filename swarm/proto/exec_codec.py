"""Commands in running tasks as messages, and back."""

from __future__ import annotations

from swarm.base.errors import Fatal, SwarmError, Unavailable, from_grpc
from swarm.model.execs import ExecConfig, ExecInput, ExecOutput, TerminalSize
from swarm.proto.gen import dispatcher_pb2 as pb


def encode_order(order_id: str, task_id: str, config: ExecConfig) -> pb.ExecOrder:
    return pb.ExecOrder(
        id=order_id,
        task_id=task_id,
        args=config.args,
        env=config.env,
        user=config.user,
        working_dir=config.working_dir,
        tty=config.tty,
        size=_encode_size(config.size) if config.size else None,
        stdin=config.stdin,
        detach=config.detach,
    )


def decode_order(order: pb.ExecOrder) -> ExecConfig:
    return ExecConfig(
        args=tuple(order.args),
        env=tuple(order.env),
        user=order.user,
        working_dir=order.working_dir,
        tty=order.tty,
        size=_decode_size(order.size) if order.HasField("size") else None,
        stdin=order.stdin,
        detach=order.detach,
    )


def encode_input(item: ExecInput) -> pb.ExecInputMessage:
    if item.size is not None:
        return pb.ExecInputMessage(size=_encode_size(item.size))
    return pb.ExecInputMessage(stdin_end=True) if item.is_stdin_end else pb.ExecInputMessage(stdin=item.stdin)


def decode_input(message: pb.ExecInputMessage) -> ExecInput:
    match message.WhichOneof("item"):
        case "size":
            return ExecInput(size=_decode_size(message.size))
        case "stdin_end":
            return ExecInput(is_stdin_end=True)
        case _:
            return ExecInput(stdin=message.stdin)


def encode_output(output: ExecOutput) -> pb.ExecOutputMessage:
    if output.exit_code is not None:
        return pb.ExecOutputMessage(exit_code=output.exit_code)
    if output.stderr:
        return pb.ExecOutputMessage(stderr=output.stderr)
    return pb.ExecOutputMessage(stdout=output.stdout)


def decode_output(message: pb.ExecOutputMessage) -> ExecOutput:
    """Raises: the error that a failure stands for."""
    match message.WhichOneof("item"):
        case "stdout":
            return ExecOutput(stdout=message.stdout)
        case "stderr":
            return ExecOutput(stderr=message.stderr)
        case "exit_code":
            return ExecOutput(exit_code=message.exit_code)
        case "failure":
            raise _decode_failure(message.failure)
        case _:
            raise Unavailable("the node sent what is no output of a command")


def encode_failure(error: SwarmError) -> pb.ExecOutputMessage:
    exit_code = error.exit_code if isinstance(error, Fatal) else None
    failure = pb.ExecFailure(code=error.grpc_code, message=str(error), exit_code=exit_code)
    return pb.ExecOutputMessage(failure=failure)


def _decode_failure(failure: pb.ExecFailure) -> SwarmError:
    if failure.HasField("exit_code"):
        return Fatal(failure.message, failure.exit_code)
    return from_grpc(failure.code, failure.message)


def _encode_size(size: TerminalSize) -> pb.ExecSize:
    return pb.ExecSize(height=size.height, width=size.width)


def _decode_size(size: pb.ExecSize) -> TerminalSize:
    return TerminalSize(height=size.height, width=size.width)
