//! Values of one hit, decoded when somebody looks.

use super::Dictionaries;
use riptrace_protocol::decode::Decoder;
use riptrace_protocol::expression::{Expr, Template, UnaryOp, eval};
use riptrace_protocol::layout::{Moment, Scope};
use riptrace_protocol::stream::OrderedHit;
use riptrace_protocol::value::{Status, Value};

pub use riptrace_protocol::expression::EvalError;

/// Scopes in the order in which a person is shown them.
pub const SCOPES: [Scope; 4] = [Scope::Argument, Scope::Local, Scope::Result, Scope::Capture];

/// What a person is shown together: a scope, or the package variables among what was captured because it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// What the function declares; captures that go out from it.
    Of(Scope),
    /// Captures of variables outside of all functions, or of parts of them.
    PackageVariables,
}

/// Groups in the order in which a person is shown them.
pub const GROUPS: [Group; 5] = [
    Group::Of(Scope::Argument),
    Group::Of(Scope::Local),
    Group::Of(Scope::Result),
    Group::PackageVariables,
    Group::Of(Scope::Capture),
];

/// The variables of one hit.
#[derive(Debug, Clone, PartialEq)]
pub struct HitValues {
    values: Vec<Value>,
    /// Of each value.
    scopes: Vec<Scope>,
    /// Which of the captures are of package variables.
    package: Vec<usize>,
    /// File and line of the declaration of each value; `None` where it is not known.
    declared: Vec<Option<u32>>,
    file: String,
    /// Why there is no variable, where that is not simply so.
    pub problem: Option<String>,
}

impl HitValues {
    /// Decodes a hit. Never fails: what cannot be read says so.
    pub fn decode(hit: &OrderedHit, dictionaries: &Dictionaries) -> HitValues {
        let Some(layout) = dictionaries.layout(&hit.raw.layout) else {
            let problem =
                format!("the layout {} of this hit never arrived, so its bytes cannot be read", hit.raw.layout);
            let (values, scopes, declared, file) = (Vec::new(), Vec::new(), Vec::new(), String::new());
            return HitValues { values, scopes, package: Vec::new(), declared, file, problem: Some(problem) };
        };
        let names = dictionaries.names(hit);
        let decoder = Decoder::new(layout, &hit.raw).with_names(&names);
        let (mut values, mut scopes, mut declared) = (Vec::new(), Vec::new(), Vec::new());
        let order = match layout.moment {
            Moment::Line | Moment::Entry => SCOPES,
            // What is new comes first.
            Moment::Return => [Scope::Result, Scope::Argument, Scope::Local, Scope::Capture],
        };
        for scope in order {
            let before = values.len();
            values.extend(decoder.variables(Some(scope)));
            scopes.resize(values.len(), scope);
            // Both are in the order of the layout.
            let variables = layout.variables.iter().filter(|variable| variable.scope == scope);
            declared
                .extend(variables.take(values.len() - before).map(|v| Some(v.declared_line).filter(|line| *line > 0)));
            declared.resize(values.len(), None);
        }
        // A name is a variable of the function before it is one of a package: all of the function's are in the layout.
        let is_own = |name: &str| {
            layout.variables.iter().any(|variable| variable.scope != Scope::Capture && variable.name == name)
        };
        let is_package = |index: &usize| {
            let expr = riptrace_protocol::expression::parse(&values[*index].name).ok();
            scopes[*index] == Scope::Capture && expr.as_ref().and_then(root).is_some_and(|root| !is_own(root))
        };
        let package = (0..values.len()).filter(is_package).collect();
        // What the capture program could not compute: an index that is known at the hit, a slice, arithmetic.
        for expr in dictionaries.captures(&hit.raw.tracepoint) {
            let name = expr.to_string();
            if values.iter().all(|value| value.name != name) {
                let value = eval(expr, &values).unwrap_or_else(|error| {
                    Value::missing(name, "", Status::NotCaptured { detail: error.to_string() })
                });
                values.push(value);
                scopes.push(Scope::Capture);
                declared.push(None);
            }
        }
        HitValues { values, scopes, package, declared, file: layout.site.file.clone(), problem: None }
    }

    /// The variables of a group, each with its index in [`HitValues::all`].
    pub fn grouped(&self, group: Group) -> impl Iterator<Item = (usize, &Value)> {
        self.values.iter().enumerate().filter(move |(index, _)| {
            let is_package = self.package.contains(index);
            match group {
                Group::Of(scope) => self.scopes[*index] == scope && !is_package,
                Group::PackageVariables => is_package,
            }
        })
    }

    /// The variables of a scope, each with its index in [`HitValues::all`].
    pub fn of(&self, scope: Scope) -> impl Iterator<Item = (usize, &Value)> {
        self.values.iter().enumerate().filter(move |(index, _)| self.scopes[*index] == scope)
    }

    /// All variables, in the order of [`SCOPES`]; at a return, the results before the others.
    pub fn all(&self) -> &[Value] {
        &self.values
    }

    /// File, as the build knows it, and line of the declaration of a variable, by its index in [`HitValues::all`].
    pub fn declared(&self, index: usize) -> Option<(&str, u32)> {
        let line = (*self.declared.get(index)?)?;
        (!self.file.is_empty()).then_some((self.file.as_str(), line))
    }

    /// The value of an expression over the captured variables. What was not captured is said to be so.
    pub fn evaluate(&self, expr: &Expr) -> Result<Value, EvalError> {
        eval(expr, &self.values)
    }

    /// A log message with its values.
    pub fn format(&self, template: &Template) -> String {
        match &self.problem {
            Some(problem) => format!("<{problem}>"),
            None => template.render(&self.values),
        }
    }
}

/// The variable that an expression goes out from; `None` for what is computed.
fn root(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Name(name) => Some(name),
        Expr::Select { of, .. } | Expr::Index { of, .. } | Expr::Slice { of, .. } | Expr::Assert { of, .. } => root(of),
        Expr::Unary { op: UnaryOp::Deref, of } => root(of),
        _ => None,
    }
}
