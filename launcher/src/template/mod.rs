//! Go's templates (text/template), as `--format` takes them, on JSON values.
//!
//! Text with actions in `{{ }}`: fields, variables, pipelines, `if`, `range`, `with`, and the functions of
//! Go's and of docker's command line. A template is checked as a whole before anything is printed.
//! `define`, `template` and `block` are refused: one line has no use for them.
//!
//! Values print as Go prints them: a list as `[a b]`, a map as `map[k:v]`, what is not there as `<no value>`.

mod functions;
mod lex;
mod parse;
mod printf;
mod run;
mod value;

use serde_json::Value;

pub use run::Mode;

/// A template that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    nodes: Vec<parse::Node>,
}

/// What is wrong with a template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It cannot be read.
    #[error("at character {at}: {why}")]
    Syntax {
        /// Where, from 1.
        at: usize,
        /// What is wrong.
        why: String,
    },
    /// A field that the values have not.
    #[error("there is no field {name:?}")]
    NoField {
        /// As written.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// A function was given what it does not take.
    #[error("{function}: {why}")]
    Call {
        /// Its name.
        function: String,
        /// What is wrong.
        why: String,
    },
    /// It cannot be done for these values.
    #[error("{0}")]
    Value(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`]
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let pieces = lex::pieces(text)?;
        let nodes = parse::parse(&pieces)?;
        Ok(Self { nodes })
    }

    /// The text for `value`, whose fields must be there if they are named; fields of fields need not.
    ///
    /// # Errors
    /// All but [`TemplateError::Syntax`].
    pub fn render(&self, value: &Value, mode: Mode) -> Result<String, TemplateError> {
        run::run(&self.nodes, value, mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(text: &str) -> Result<String, TemplateError> {
        let value = json!({
            "ID": "abc", "N": 3, "F": 1.5, "Yes": true, "Nothing": null, "Empty": [],
            "List": ["b", "a"], "Map": {"x": "1", "a b": "2"}, "Name": "web one",
            "Nested": [{"K": "v1"}, {"K": "v2"}], "Label": {"app": "web"}
        });
        Template::parse(text)?.render(&value, Mode::Values)
    }

    fn check(cases: &[(&str, &str)]) {
        for (text, wanted) in cases {
            assert_eq!(render(text).as_deref(), Ok(*wanted), "{text}");
        }
    }

    #[test]
    fn fields_literals_and_pipelines_print_as_go_prints_them() {
        check(&[
            ("plain", "plain"),
            ("{{.ID}}:{{ .N }}", "abc:3"),
            ("{{.F}} {{.Yes}} {{.Nothing}}", "1.5 true <no value>"),
            ("{{.List}} {{.Map}} {{.Empty}}", "[b a] map[a b:2 x:1] []"),
            ("{{.Map.x}}{{.Map.nope}}", "1<no value>"),
            (r#"{{"a\tb"}}{{`c\d`}}{{'x'}}"#, "a\tbc\\d120"),
            ("{{json .List}} {{json .ID}}", r#"["b","a"] "abc""#),
            ("{{.List | json}}", r#"["b","a"]"#),
            (
                r#"{{.ID | upper | printf "%s-%d" "x" | lower}}"#,
                "x-%!d(string=abc)",
            ),
            (
                r#"{{printf "%-5s|%5d|%05.1f|%q|%v|%x|%%" .ID .N .F .ID .List .N}}"#,
                "abc  |    3|001.5|\"abc\"|[b a]|3|%",
            ),
            (
                r#"{{join .List ","}} {{index (split "a:b" ":") 1}} {{title .Name}}"#,
                "b,a b Web One",
            ),
            (
                r#"{{len .List}} {{index .List 0}} {{index .Map "a b"}} {{slice .ID 1 2}}"#,
                "2 b 2 b",
            ),
            (r#"{{println .ID .N}}{{print "a" "b" 1 2}}"#, "abc 3\nab1 2"),
            (r#"{{pad .ID 1 2}}|{{truncate .ID 2}}"#, " abc  |ab"),
            (r#"{{.Label "app"}}{{.Label "none"}}"#, "web"),
            ("{{(index .Nested 1).K}}", "v2"),
            ("a {{- .ID -}} \n b", "aabcb"),
            ("{{/* said aside */}}x{{- /* and so */ -}} y", "xy"),
        ]);
    }

    #[test]
    fn conditions_loops_and_variables_do_what_they_do_in_go() {
        check(&[
            (
                "{{if .Yes}}y{{else}}n{{end}}{{if .Empty}}y{{else}}n{{end}}",
                "yn",
            ),
            (
                r#"{{if eq .ID "x"}}1{{else if eq .N 3}}2{{else}}3{{end}}"#,
                "2",
            ),
            ("{{range .List}}{{.}};{{end}}", "b;a;"),
            ("{{range $i, $v := .List}}{{$i}}={{$v}} {{end}}", "0=b 1=a "),
            (
                "{{range $k, $v := .Map}}{{$k}}={{$v}},{{end}}",
                "a b=2,x=1,",
            ),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            ("{{range .Nested}}{{.K}}{{$.ID}}{{end}}", "v1abcv2abc"),
            (
                "{{range .List}}{{if eq . \"a\"}}{{break}}{{end}}{{.}}{{end}}",
                "b",
            ),
            (
                "{{range .List}}{{if eq . \"b\"}}{{continue}}{{end}}{{.}}{{end}}",
                "a",
            ),
            (
                "{{with .Map}}{{.x}}{{end}}{{with .Nothing}}x{{else}}none{{end}}",
                "1none",
            ),
            (
                "{{$x := .ID}}{{if .Yes}}{{$x = \"new\"}}{{end}}{{$x}}",
                "new",
            ),
            (
                "{{and .Yes .ID}} {{or .Nothing .N}} {{not .Yes}}",
                "abc 3 false",
            ),
            ("{{and .Empty (index .Empty 0)}}", "[]"),
            (
                r#"{{lt 1 .N}}{{ge .N 3}}{{ne .ID "x"}}{{gt "b" "a"}}{{eq .N 1 2 3}}"#,
                "truetruetruetruetrue",
            ),
        ]);
    }

    #[test]
    fn what_is_wrong_is_found_before_anything_is_printed() {
        for bad in [
            "{{",
            "{{.ID",
            "{{}}",
            "{{nope .ID}}",
            "{{if .ID}}",
            "{{end}}",
            "{{else}}",
            "{{.ID}} {{range}}{{end}}",
            "{{.ID | }}",
            "{{| .ID}}",
            "{{\"x}}",
            "{{`x}}",
            "{{(.ID}}",
            "{{.ID)}}",
            "{{$x}}",
            "{{1a}}",
            "{{define \"x\"}}{{end}}",
            "{{template \"x\"}}",
            "{{break}}",
            "{{.ID := 1}}",
            "{{$x, $y := .ID}}",
            "{{#}}",
            "{{.1}}",
            "{{3 .ID}}",
            "{{'ab'}}",
        ] {
            let e = Template::parse(bad).expect_err(bad);
            assert!(matches!(e, TemplateError::Syntax { .. }), "{bad}: {e}");
        }
        let deep = "{{if .ID}}".repeat(10_000);
        assert!(Template::parse(&deep).is_err());
        let deep = format!("{{{{{}1{}}}}}", "(".repeat(50_000), ")".repeat(50_000));
        assert!(Template::parse(&deep).is_err());
    }

    #[test]
    fn what_values_cannot_do_is_an_error_and_no_panic() {
        match render("{{.Nope}}") {
            Err(TemplateError::NoField { name, known }) => {
                assert_eq!(name, "Nope");
                assert!(known.contains(&"ID".to_owned()));
            }
            other => panic!("{other:?}"),
        }
        for bad in [
            "{{index .List 5}}",
            "{{index .List -1}}",
            "{{slice .ID 3 1}}",
            "{{slice .ID 0 99}}",
            "{{len .N}}",
            "{{join .N \",\"}}",
            "{{.ID.Deeper}}",
            "{{eq .ID .N}}",
            "{{lt .List .List}}",
            "{{range .N}}{{end}}",
            "{{upper .N}}",
            "{{upper}}",
            "{{index}}",
            "{{printf}}",
            "{{split .ID}}",
            "{{pad .ID 99999999999 1}}",
        ] {
            assert!(render(bad).is_err(), "{bad}");
        }
        assert_eq!(render("{{truncate .ID 99999999999}}").as_deref(), Ok("abc"));
        assert!(render("{{printf \"%999999999d\" 1}}").is_err());
        assert!(render("{{printf \"%\"}}").is_ok());
    }

    #[test]
    fn heads_pass_through_what_changes_values() {
        let heads = json!({"ID": "IMAGE ID", "Names": "NAMES"});
        let t = Template::parse("{{lower .ID}}\t{{json .Names}}\t{{truncate .ID 3}}").unwrap();
        assert_eq!(
            t.render(&heads, Mode::Heads).unwrap(),
            "IMAGE ID\tNAMES\tIMAGE ID"
        );
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_written_makes_it_panic(text in "(\\{\\{|\\}\\}|[-.$|()\"`',:= a-z0-9]|if |end|range |else|index |printf |\"%[-0-9.]*[a-z]\"){0,40}") {
            let value = json!({"a": [1, {"b": "ü"}], "b": "ü€"});
            if let Ok(t) = Template::parse(&text) {
                let _ = t.render(&value, Mode::Values);
                let _ = t.render(&value, Mode::Heads);
            }
        }
    }
}
