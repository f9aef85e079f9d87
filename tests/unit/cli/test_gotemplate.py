"""Templates against what Go's text/template prints."""

from __future__ import annotations

import pytest

from swarm.model.gotemplate import Limits, Options, TemplateError, render

DATA = {
    "Name": "web",
    "Labels": {"tier": "front", "app": "shop"},
    "Env": ["A=1", "B=two words"],
    "Ports": [{"Target": 80, "Proto": "tcp"}, {"Target": 53, "Proto": "udp"}],
    "Empty": [],
    "Nothing": None,
    "Count": 3,
    "Ratio": 0.5,
    "On": True,
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "plain"),
        ("{{.Name}}", "web"),
        ("{{.}}", None),
        ("{{.Labels}} {{.Env}} {{.On}} {{.Ratio}} {{.Nothing}}", None),
        ("{{.Labels}}", "map[app:shop tier:front]"),
        ("{{.Env}}", "[A=1 B=two words]"),
        ("{{.Ports}}", "[map[Proto:tcp Target:80] map[Proto:udp Target:53]]"),
        ("{{.Nothing}}", "<no value>"),
        ("{{.Labels.tier}} {{$.Name}}", "front web"),
        ('{{index .Labels "tier"}} {{index .Labels "no"}}|{{index .Env 1}}', "front |B=two words"),
        ("{{(index .Ports 1).Proto}}", "udp"),
        ('{{index .Ports 0 "Target"}}', "80"),
        ("{{range .Ports}}{{.Target}}/{{.Proto}};{{end}}", "80/tcp;53/udp;"),
        ("{{range $i, $p := .Ports}}{{if $i}}, {{end}}{{$i}}:{{$p.Target}}{{end}}", "0:80, 1:53"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "app=shop tier=front "),
        ("{{range $v := .Env}}{{$v}}|{{end}}", "A=1|B=two words|"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{with .Nothing}}x{{else}}gone{{end}}", "gone"),
        ("{{with $x := .Name}}{{$x}}-{{.}}{{end}}", "web-web"),
        ("{{if .Empty}}a{{else if .On}}b{{else}}c{{end}}", "b"),
        ("{{if and .On (eq .Count 3)}}yes{{end}}", "yes"),
        ("{{$x := 1}}{{if .On}}{{$x = 2}}{{end}}{{$x}}", "2"),
        ("{{$x := 1}}{{range .Env}}{{$x := 5}}{{end}}{{$x}}", "1"),
        ("a {{- .Name -}} b", "awebb"),
        ("a {{- /* note */ -}} b", "ab"),
        ("{{/* note */}}x", "x"),
        ('{{ .Name | upper | printf "%s!" }}', "WEB!"),
        ("{{.Env | json}}", '["A=1","B=two words"]'),
        ("{{json .Ports}}", '[{"Target":80,"Proto":"tcp"},{"Target":53,"Proto":"udp"}]'),
        ('{{join .Env ", "}}', "A=1, B=two words"),
        ('{{split "a,b,c" ","}} {{len (split "a,b" ",")}}', "[a b c] 2"),
        ('{{title "hello big world"}} {{lower "ABC"}}', "Hello Big World abc"),
        ('[{{pad "x" 1 2}}] {{truncate "abcdef" 3}} {{truncate "ab" 9}}', "[ x  ] abc ab"),
        ("{{len .Name}} {{len .Labels}} {{len .Env}}", "3 2 2"),
        (
            "{{eq 1 2 1}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 2 2}}",
            "true true true true false true",
        ),
        ('{{eq .Name "web"}} {{lt "a" "b"}}', "true true"),
        ('{{and 1 0}} {{and 1 2}} {{or 0 "x"}} {{or 0 ""}}| {{not .On}}', "0 2 x | false"),
        ('{{slice "abcdef" 1 3}} {{slice .Env 1}}', "bc [B=two words]"),
        ('{{print 1 2 "a" "b" 3}}', "1 2ab3"),
        ('{{println "a" 1}}', "a 1\n"),
        ('{{printf "%5d|%-5d|%05d|%x|%q|%v|%t|%.2f|%%" 42 42 42 255 "hi" .Env .On .Ratio}}', None),
        ('{{printf "%5s|%-5s|%.2s" "ab" "ab" "abc"}}', "   ab|ab   |ab"),
        ('{{printf "%d" "x"}} {{printf "%s" 3}} {{printf "%d"}} {{printf "a" 1}}', None),
        ('{{html "<a href=\'x\'>&"}} {{urlquery "a b&c/d"}}', "&lt;a href=&#39;x&#39;&gt;&amp; a+b%26c%2Fd"),
        ('{{"quo\\"te\\n"}}{{`raw\\n`}}', 'quo"te\nraw\\n'),
        ("{{'a'}} {{0x1F}} {{1e3}} {{-4}} {{1.50}} {{1e21}}", "97 31 1000 -4 1.5 1e+21"),
        ("{{true}} {{false}}", "true false"),
        ("line1\n{{.Name}}\n", "line1\nweb\n"),
    ],
)
def test_prints_what_go_prints(template: str, expected: str | None) -> None:
    special = {
        "{{.Labels}} {{.Env}} {{.On}} {{.Ratio}} {{.Nothing}}": (
            "map[app:shop tier:front] [A=1 B=two words] true 0.5 <no value>"
        ),
        "{{.}}": (
            "map[Count:3 Empty:[] Env:[A=1 B=two words] Labels:map[app:shop tier:front] Name:web "
            "Nothing:<nil> On:true Ports:[map[Proto:tcp Target:80] map[Proto:udp Target:53]] Ratio:0.5]"
        ),
        '{{printf "%5d|%-5d|%05d|%x|%q|%v|%t|%.2f|%%" 42 42 42 255 "hi" .Env .On .Ratio}}': (
            '   42|42   |00042|ff|"hi"|[A=1 B=two words]|true|0.50|%'
        ),
        '{{printf "%d" "x"}} {{printf "%s" 3}} {{printf "%d"}} {{printf "a" 1}}': (
            "%!d(string=x) %!s(int=3) %!d(MISSING) a%!(EXTRA int=1)"
        ),
    }
    assert render(template, DATA) == (special[template] if expected is None else expected)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{.Foo}}", 'template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"'),
        ("{{.Labels.no}}", 'template: :1:9: executing "" at <.Labels.no>: map has no entry for key "no"'),
        (
            "{{.Name.Foo}}",
            'template: :1:7: executing "" at <.Name.Foo>: can\'t evaluate field Foo in type string',
        ),
        ("a\nb {{.Foo}}", 'template: :2:4: executing "" at <.Foo>: map has no entry for key "Foo"'),
        ("{{.ID", "template: :1: unclosed action"),
        ("{{nope 1}}", 'template: :1: function "nope" not defined'),
        ('{{lt 1 "a"}}', 'executing "" at <lt 1 "a">: error calling lt: incompatible types for comparison'),
        ("{{if}}x{{end}}", "template: :1: missing value for if"),
        ("{{if true}}x", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{$x}}", 'template: :1: undefined variable "$x"'),
        ("{{with $x := 1}}{{end}}{{$x}}", 'undefined variable "$x"'),
        ("{{}}", "template: :1: missing value for command"),
        ('{{"abc}}', "template: :1: unterminated quoted string"),
        ("{{lower}}", "wrong number of args for lower: want 1 got 0"),
        ("{{index .Env 9}}", "error calling index: index out of range: 9"),
        ("{{range .Name}}{{end}}", "range can't iterate over web"),
        ('{{template "x"}}', "is not supported"),
        ("{{.Name 1}}", "is not a method but has arguments"),
        ("{{len 3}}", "error calling len: len of type int"),
        ("{{.__class__}}", 'map has no entry for key "__class__"'),
        ("{{.Name.upper}}", "can't evaluate field upper in type string"),
        ("{{/* x */ .Name}}", "comment ends before closing delimiter"),
    ],
)
def test_reports_errors_in_the_words_of_go(template: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(template, DATA)
    assert message in str(caught.value)


def test_an_optional_key_is_nil_where_it_is_missing() -> None:
    options = Options(optional=frozenset({"Args"}))
    assert render("{{range .Args}}x{{else}}none{{end}}", {}, options) == "none"


def test_a_template_cannot_run_away() -> None:
    data = {"Many": list(range(1000))}
    nested = "{{range .Many}}{{range $.Many}}x{{end}}{{end}}"
    with pytest.raises(TemplateError, match="too many steps"):
        render(nested, data, Options(limits=Limits(steps=10_000)))
    with pytest.raises(TemplateError, match="too much output"):
        render('{{range .Many}}{{pad "" 1000 0}}{{end}}', data, Options(limits=Limits(output=10_000)))
    assert len(render('{{printf "%999999999d" 1}}{{pad "" 999999999 0}}', {})) == 2000
