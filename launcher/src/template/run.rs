//! Filling a template in.

use serde_json::Value;

use super::{
    TemplateError, functions,
    parse::{Branch, Command, Node, Operand, Pipeline, Term},
    value::{is_true, kind, show},
};

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Values.
    Values,
    /// The heads of a table: functions that change a text leave it as it is.
    Heads,
}

/// How a list of nodes ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

pub(super) fn run(nodes: &[Node], root: &Value, mode: Mode) -> Result<String, TemplateError> {
    let mut run = Run {
        root,
        mode,
        variables: Vec::new(),
        out: String::new(),
    };
    run.nodes(nodes, root)?;
    Ok(run.out)
}

struct Run<'a> {
    root: &'a Value,
    mode: Mode,
    variables: Vec<(String, Value)>,
    out: String,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, TemplateError> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.out.push_str(text);
                    Flow::On
                }
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&show(&value));
                    }
                    Flow::On
                }
                Node::If(branch) => self.choose(branch, dot, false)?,
                Node::With(branch) => self.choose(branch, dot, true)?,
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn choose(&mut self, branch: &Branch, dot: &Value, with: bool) -> Result<Flow, TemplateError> {
        let known = self.variables.len();
        let value = self.pipeline(&branch.pipeline, dot)?;
        let flow = if !is_true(&value) {
            self.nodes(&branch.otherwise, dot)
        } else if with {
            self.nodes(&branch.body, &value)
        } else {
            self.nodes(&branch.body, dot)
        };
        self.variables.truncate(known);
        flow
    }

    fn range(&mut self, branch: &Branch, dot: &Value) -> Result<Flow, TemplateError> {
        let known = self.variables.len();
        let bare = Pipeline {
            variables: Vec::new(),
            assigns: false,
            ..branch.pipeline.clone()
        };
        let items: Vec<(Value, Value)> = match self.pipeline(&bare, dot)? {
            Value::Null => Vec::new(),
            Value::Array(list) => list
                .into_iter()
                .enumerate()
                .map(|(n, v)| (n.into(), v))
                .collect(),
            Value::Object(map) => {
                let mut all: Vec<(String, Value)> = map.into_iter().collect();
                all.sort_by(|a, b| a.0.cmp(&b.0));
                all.into_iter().map(|(k, v)| (k.into(), v)).collect()
            }
            // A head stands for a list of any kind.
            head @ Value::String(_) if self.mode == Mode::Heads => vec![(0.into(), head)],
            other => {
                return Err(TemplateError::Value(format!(
                    "range goes over lists and maps, not over a {}",
                    kind(&other)
                )));
            }
        };
        if items.is_empty() {
            return self.nodes(&branch.otherwise, dot);
        }
        for (key, value) in items {
            match branch.pipeline.variables.as_slice() {
                [k, v] => {
                    self.variables.push((k.clone(), key));
                    self.variables.push((v.clone(), value.clone()));
                }
                [v] if branch.pipeline.assigns => self.assign(v, value.clone()),
                [v] => self.variables.push((v.clone(), value.clone())),
                _ => {}
            }
            let flow = self.nodes(&branch.body, &value)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn assign(&mut self, name: &str, value: Value) {
        if let Some(slot) = self.variables.iter_mut().rev().find(|(n, _)| n == name) {
            slot.1 = value;
        }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let mut last: Option<Value> = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        let value = last.unwrap_or(Value::Null);
        if let Some(name) = pipeline.variables.first() {
            if pipeline.assigns {
                self.assign(name, value.clone());
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn command(
        &mut self,
        command: &Command,
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let Term::Function(name) = &command.first.term else {
            let value = self.operand(&command.first, dot)?;
            let mut arguments = Vec::new();
            for argument in &command.arguments {
                arguments.push(self.operand(argument, dot)?);
            }
            arguments.extend(piped);
            return self.called(command, value, &arguments);
        };
        if let Some(until) = match name.as_str() {
            "and" => Some(false),
            "or" => Some(true),
            _ => None,
        } {
            return self.lazily(name, until, command, dot, piped);
        }
        let mut arguments = Vec::new();
        for argument in &command.arguments {
            arguments.push(self.operand(argument, dot)?);
        }
        arguments.extend(piped);
        functions::call(name, &arguments, self.mode)
    }

    /// `and`, `or`: what follows the value that decides is not looked at.
    fn lazily(
        &mut self,
        name: &str,
        until: bool,
        command: &Command,
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let mut last = None;
        for argument in &command.arguments {
            let value = self.operand(argument, dot)?;
            if is_true(&value) == until {
                return Ok(value);
            }
            last = Some(value);
        }
        piped.or(last).ok_or_else(|| TemplateError::Call {
            function: name.to_owned(),
            why: "it takes one value or more".to_owned(),
        })
    }

    /// A field with arguments: `.Label "key"`, of a map.
    fn called(
        &self,
        command: &Command,
        value: Value,
        arguments: &[Value],
    ) -> Result<Value, TemplateError> {
        let name = || command.first.fields.last().cloned().unwrap_or_default();
        match (value, arguments) {
            (value, []) => Ok(value),
            (Value::Object(map), [Value::String(key)]) => {
                Ok(map.get(key).cloned().unwrap_or_else(|| "".into()))
            }
            (Value::String(_), [Value::String(key)]) if self.mode == Mode::Heads => {
                Ok(key.clone().into())
            }
            _ => Err(TemplateError::Call {
                function: format!(".{}", name()),
                why: "it takes no such arguments".to_owned(),
            }),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        let start = match &operand.term {
            Term::Dot => return self.fields(dot, &operand.fields),
            Term::Variable(name) if name.is_empty() => {
                return self.fields(self.root, &operand.fields);
            }
            Term::Literal(value) => value.clone(),
            Term::Variable(name) => {
                let found = self.variables.iter().rev().find(|(n, _)| n == name);
                found.map_or(Value::Null, |(_, value)| value.clone())
            }
            Term::Nested(pipeline) => self.pipeline(pipeline, dot)?,
            Term::Function(name) => functions::call(name, &[], self.mode)?,
        };
        self.fields(&start, &operand.fields)
    }

    fn fields(&self, start: &Value, fields: &[String]) -> Result<Value, TemplateError> {
        let mut at = start;
        for name in fields {
            at = match at {
                Value::Object(map) => match map.get(name) {
                    Some(value) => value,
                    None if std::ptr::eq(at, self.root) => {
                        return Err(TemplateError::NoField {
                            name: name.clone(),
                            known: map.keys().cloned().collect(),
                        });
                    }
                    None => &Value::Null,
                },
                Value::Null => &Value::Null,
                // A head has all fields.
                Value::String(_) if self.mode == Mode::Heads => at,
                other => {
                    return Err(TemplateError::Value(format!(
                        "there is no field {name:?} in a {}",
                        kind(other)
                    )));
                }
            };
        }
        Ok(at.clone())
    }
}
