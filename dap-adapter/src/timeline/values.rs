//! Values of one hit, decoded when somebody looks.

use super::Dictionaries;
use riptrace_protocol::expression::{Expr, Part, Template};
use riptrace_protocol::layout::Scope;
use riptrace_protocol::stream::OrderedHit;
use riptrace_protocol::value::{Status, Value};

/// The variables of one hit.
#[derive(Debug, Clone, PartialEq)]
pub struct HitValues {
    /// Each variable with the scope it belongs to, in the layout's order.
    pub variables: Vec<(Scope, Value)>,
    /// Why there is no variable, where that is not simply so.
    pub problem: Option<String>,
}

impl HitValues {
    /// Decodes a hit. Never fails: what cannot be read says so.
    pub fn decode(hit: &OrderedHit, dictionaries: &Dictionaries) -> HitValues {
        let Some(layout) = dictionaries.layout(&hit.raw.layout) else {
            let problem =
                format!("the layout {} of this hit never arrived, so its bytes cannot be read", hit.raw.layout);
            return HitValues { variables: Vec::new(), problem: Some(problem) };
        };
        let variables = layout.variables.iter().map(|variable| {
            let type_name = layout.ty(variable.ty).map_or("", |ty| ty.name.as_str());
            let status = Status::NotCaptured { detail: String::new() };
            (variable.scope, Value::missing(&variable.name, type_name, status))
        });
        HitValues { variables: variables.collect(), problem: None }
    }

    /// The variables of a scope.
    pub fn of(&self, scope: Scope) -> impl Iterator<Item = &Value> {
        self.variables.iter().filter(move |(of, _)| *of == scope).map(|(_, value)| value)
    }

    /// All variables.
    pub fn all(&self) -> impl Iterator<Item = &Value> {
        self.variables.iter().map(|(_, value)| value)
    }

    /// The value of an expression over the captured variables. What was not captured is said to be so.
    pub fn evaluate(&self, expr: &Expr) -> Value {
        Value::missing(expr.to_string(), "", Status::NotCaptured { detail: String::new() })
    }

    /// A log message with its values.
    pub fn format(&self, template: &Template) -> String {
        let mut text = String::new();
        for part in &template.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Expr(expr) => {
                    let value = self.evaluate(expr);
                    text.push_str(&value.value);
                    text.push_str(&value.status.note());
                }
            }
        }
        text
    }
}
