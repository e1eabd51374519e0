//! Tokens into a tree.

use serde_json::Value;

use super::{
    TemplateError, functions,
    lex::{Piece, Token, syntax},
};

/// Blocks in blocks and parentheses in parentheses; more than anybody writes.
const DEPTH_MAX: usize = 50;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Break,
    Continue,
}

/// A block with what is done otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Branch {
    pub(super) pipeline: Pipeline,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands whose results go on to the next, and the variables that get the last.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    /// The variable is there already.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
}

/// A value, or a function or field with arguments.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command {
    pub(super) first: Operand,
    pub(super) arguments: Vec<Operand>,
}

/// Something with fields of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Operand {
    pub(super) term: Term,
    pub(super) fields: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    Dot,
    Literal(Value),
    Variable(String),
    Function(String),
    Nested(Box<Pipeline>),
}

/// What ended a list of nodes.
enum End {
    Template,
    Block,
    /// `else`, and the rest of its action: `if ...`.
    Else(Vec<(Token, usize)>, usize),
}

pub(super) fn parse(pieces: &[Piece]) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser {
        pieces: pieces.iter(),
        variables: Vec::new(),
        depth: 0,
        loops: 0,
    };
    let (nodes, end) = parser.nodes()?;
    match end {
        (End::Template, _) => Ok(nodes),
        (End::Block, at) => Err(syntax(at, "{{end}} ends nothing")),
        (End::Else(..), at) => Err(syntax(at, "{{else}} belongs to nothing")),
    }
}

struct Parser<'a> {
    pieces: std::slice::Iter<'a, Piece>,
    /// Those that can be named.
    variables: Vec<String>,
    depth: usize,
    loops: usize,
}

impl Parser<'_> {
    fn nodes(&mut self) -> Result<(Vec<Node>, (End, usize)), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (tokens, at) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text.clone()));
                    continue;
                }
                Piece::Action(tokens, at) => (tokens.as_slice(), *at),
            };
            let word = match tokens.first() {
                Some((Token::Word(word), _)) => word.as_str(),
                _ => "",
            };
            let rest = tokens.get(1..).unwrap_or_default();
            match word {
                "end" if rest.is_empty() => return Ok((nodes, (End::Block, at))),
                "else" => return Ok((nodes, (End::Else(rest.to_vec(), at), at))),
                "if" | "with" | "range" => nodes.push(self.block(word, rest, at)?),
                "break" | "continue" if rest.is_empty() => {
                    if self.loops == 0 {
                        return Err(syntax(at, format!("{{{{{word}}}}} is outside of a range")));
                    }
                    nodes.push(if word == "break" {
                        Node::Break
                    } else {
                        Node::Continue
                    });
                }
                "define" | "template" | "block" => {
                    return Err(syntax(at, format!("{{{{{word}}}}} is not supported")));
                }
                _ => nodes.push(Node::Print(self.whole(tokens, at)?)),
            }
        }
        Ok((nodes, (End::Template, 0)))
    }

    fn block(
        &mut self,
        word: &str,
        tokens: &[(Token, usize)],
        at: usize,
    ) -> Result<Node, TemplateError> {
        self.deeper(at)?;
        let known = self.variables.len();
        let pipeline = self.pipeline_of(tokens, at, word == "range")?;
        let is_loop = usize::from(word == "range");
        self.loops += is_loop;
        let (body, (end, _)) = self.nodes()?;
        self.loops -= is_loop;
        let otherwise = match end {
            End::Template => return Err(syntax(at, format!("{{{{{word}}}}} has no {{{{end}}}}"))),
            End::Block => Vec::new(),
            End::Else(rest, else_at) => match rest.first() {
                None => {
                    let (nodes, (end, _)) = self.nodes()?;
                    match end {
                        End::Block => nodes,
                        _ => return Err(syntax(else_at, "{{else}} has no {{end}}")),
                    }
                }
                Some((Token::Word(next), _))
                    if (next == "if" || next == "with") && word == next =>
                {
                    let rest = rest.get(1..).unwrap_or_default();
                    vec![self.block(next, rest, else_at)?]
                }
                Some(_) => {
                    return Err(syntax(
                        else_at,
                        format!("{{{{else}}}} of {word} is followed by what it cannot be"),
                    ));
                }
            },
        };
        self.variables.truncate(known);
        self.depth -= 1;
        let branch = Branch {
            pipeline,
            body,
            otherwise,
        };
        Ok(match word {
            "if" => Node::If(branch),
            "with" => Node::With(branch),
            _ => Node::Range(branch),
        })
    }

    fn deeper(&mut self, at: usize) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(syntax(at, "it nests too deeply"));
        }
        Ok(())
    }

    fn whole(&mut self, tokens: &[(Token, usize)], at: usize) -> Result<Pipeline, TemplateError> {
        self.pipeline_of(tokens, at, false)
    }

    /// The pipeline of an action, with what it declares.
    fn pipeline_of(
        &mut self,
        tokens: &[(Token, usize)],
        at: usize,
        two: bool,
    ) -> Result<Pipeline, TemplateError> {
        let (variables, assigns, skip) = match tokens {
            [(Token::Variable(v), _), (Token::Declare, _), ..] => (vec![v.clone()], false, 2),
            [(Token::Variable(v), _), (Token::Assign, _), ..] => (vec![v.clone()], true, 2),
            [
                (Token::Variable(k), _),
                (Token::Comma, _),
                (Token::Variable(v), _),
                (Token::Declare, _),
                ..,
            ] if two => (vec![k.clone(), v.clone()], false, 4),
            _ => (Vec::new(), false, 0),
        };
        if variables.iter().any(String::is_empty) {
            return Err(syntax(at, "$ is no variable of one's own"));
        }
        if assigns && !variables.iter().all(|v| self.variables.contains(v)) {
            return Err(syntax(at, "= needs a variable that was declared with :="));
        }
        let mut cursor = Cursor {
            tokens: tokens.get(skip..).unwrap_or_default(),
            end: at,
        };
        let commands = self.commands(&mut cursor)?;
        if let Some((token, at)) = cursor.tokens.first() {
            return Err(syntax(*at, unexpected(token)));
        }
        if !assigns {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipeline {
            variables,
            assigns,
            commands,
        })
    }

    fn commands(&mut self, cursor: &mut Cursor<'_>) -> Result<Vec<Command>, TemplateError> {
        let mut commands: Vec<Command> = Vec::new();
        loop {
            let at = cursor.at();
            let mut operands = Vec::new();
            while let Some(operand) = self.operand(cursor)? {
                operands.push(operand);
            }
            let mut operands = operands.into_iter();
            let first = operands
                .next()
                .ok_or_else(|| syntax(at, "a value or a function is missing"))?;
            let arguments: Vec<Operand> = operands.collect();
            let takes = matches!(first.term, Term::Function(_)) || !first.fields.is_empty();
            if !takes && (!arguments.is_empty() || !commands.is_empty()) {
                return Err(syntax(at, "only functions and fields take arguments"));
            }
            commands.push(Command { first, arguments });
            match cursor.tokens.first() {
                Some((Token::Pipe, _)) => cursor.step(),
                _ => return Ok(commands),
            }
        }
    }

    fn operand(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<Operand>, TemplateError> {
        let Some((token, at)) = cursor.tokens.first() else {
            return Ok(None);
        };
        let mut fields = Vec::new();
        let term = match token {
            Token::Dot => Term::Dot,
            Token::Field(name, glued) => {
                if *glued {
                    return Err(syntax(*at, "a field of something that has none"));
                }
                fields.push(name.clone());
                Term::Dot
            }
            Token::Variable(name) => {
                if !name.is_empty() && !self.variables.contains(name) {
                    return Err(syntax(*at, format!("there is no variable ${name}")));
                }
                Term::Variable(name.clone())
            }
            Token::Literal(value) => Term::Literal(value.clone()),
            Token::Word(word) => match word.as_str() {
                "true" => Term::Literal(true.into()),
                "false" => Term::Literal(false.into()),
                "nil" => Term::Literal(Value::Null),
                name if functions::is_known(name) => Term::Function(name.to_owned()),
                name => return Err(syntax(*at, format!("there is no function {name:?}"))),
            },
            Token::Open => {
                let at = *at;
                cursor.step();
                self.deeper(at)?;
                let commands = self.commands(cursor)?;
                self.depth -= 1;
                if !matches!(cursor.tokens.first(), Some((Token::Close, _))) {
                    return Err(syntax(at, "( is not closed by )"));
                }
                Term::Nested(Box::new(Pipeline {
                    variables: Vec::new(),
                    assigns: false,
                    commands,
                }))
            }
            Token::Pipe | Token::Close | Token::Comma | Token::Declare | Token::Assign => {
                return Ok(None);
            }
        };
        let may_have_fields = !matches!(term, Term::Literal(_) | Term::Function(_));
        cursor.step();
        while let Some((Token::Field(name, true), at)) = cursor.tokens.first() {
            if !may_have_fields {
                return Err(syntax(*at, "a field of something that has none"));
            }
            fields.push(name.clone());
            cursor.step();
        }
        Ok(Some(Operand { term, fields }))
    }
}

struct Cursor<'a> {
    tokens: &'a [(Token, usize)],
    end: usize,
}

impl Cursor<'_> {
    fn step(&mut self) {
        self.tokens = self.tokens.get(1..).unwrap_or_default();
    }

    fn at(&self) -> usize {
        self.tokens.first().map_or(self.end, |(_, at)| *at)
    }
}

fn unexpected(token: &Token) -> String {
    let shown = match token {
        Token::Close => ")",
        Token::Comma => ",",
        Token::Declare => ":=",
        Token::Assign => "=",
        _ => return "it cannot stand here".to_owned(),
    };
    format!("{shown} cannot stand here")
}
