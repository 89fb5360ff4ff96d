//! Values as a person sees them, each with a status of honesty.

use serde::{Deserialize, Serialize};

/// A value with its status and, for what has parts, its children.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Name of the variable, field or element (`"[3]"`).
    pub name: String,
    /// Type as the language writes it.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The value as the language writes it; empty when the status says that there is none.
    pub value: String,
    /// How far it can be believed.
    #[serde(flatten)]
    pub status: Status,
    /// Fields, elements, pointee.
    #[serde(default)]
    pub children: Vec<Value>,
    /// Of an entry of a map: its key; not sent, as the name tells it.
    #[serde(skip)]
    pub key: Option<Box<Value>>,
    /// What an expression computes with; not sent.
    #[serde(skip)]
    pub scalar: Option<Scalar>,
    /// What else an expression has to know of it; not sent.
    #[serde(skip)]
    pub facts: Facts,
}

/// What an expression has to know of a value besides its [`Scalar`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// How arithmetic on it wraps and rounds; `None` for what is no number of the program.
    pub number: Option<Number>,
    /// It is a field whose own fields are promoted (Go embedding).
    pub embedded: bool,
}

/// Kind and size of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// Integer in two's complement.
    Signed {
        /// Its size, 8 to 128.
        bits: u16,
    },
    /// Integer without sign.
    Unsigned {
        /// Its size, 8 to 128.
        bits: u16,
    },
    /// IEEE 754.
    Float {
        /// Its size, 32 or 64.
        bits: u16,
    },
}

/// How far a value can be believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    /// It is what the program had.
    Exact,
    /// Only a part of it is known.
    Partial {
        /// Which part.
        detail: String,
    },
    /// There is a reason not to believe it.
    Suspect {
        /// Which reason.
        detail: String,
    },
    /// The compiler keeps it nowhere here.
    OptimisedOut,
    /// What is shown is exact, and there is more.
    Truncated {
        /// Which limit cut it.
        detail: String,
    },
    /// Its memory could not be read.
    Unreadable {
        /// The address, in hexadecimal.
        detail: String,
    },
    /// Withheld because of its name.
    Redacted,
    /// It was not captured.
    NotCaptured {
        /// Why.
        detail: String,
    },
}

/// What an expression computes with.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// Any integer, rune, enum.
    Int(i128),
    /// Any float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Bytes of a string that is whole.
    Text(Vec<u8>),
    /// First bytes of a string that a limit or a fault cut.
    TextPart {
        /// What is known of it.
        shown: Vec<u8>,
        /// Its whole length, in bytes.
        len: u64,
    },
    /// A slice or an array; its elements are the value's children, as far as they were captured.
    Sequence {
        /// Elements it has.
        len: u64,
        /// Elements it has room for; `None` for an array.
        cap: Option<u64>,
        /// A slice that is nil.
        nil: bool,
    },
    /// An address; 0 is nil.
    Address(u64),
    /// An interface; what it holds is the value's only child, where that was captured.
    Interface {
        /// Whether it holds nothing.
        nil: bool,
    },
    /// A map; its elements are the value's children, as far as they were captured, each with its [`Value::key`].
    Map {
        /// Entries it has.
        len: u64,
        /// A map that is nil.
        nil: bool,
    },
    /// A channel.
    Channel {
        /// Elements in its buffer.
        len: u64,
        /// Elements it has room for.
        cap: u64,
        /// A channel that is nil.
        nil: bool,
    },
    /// A function value.
    Function {
        /// Whether it is nil.
        nil: bool,
    },
}

impl Value {
    /// An exact value without parts.
    pub fn exact(name: impl Into<String>, type_name: impl Into<String>, value: impl Into<String>) -> Value {
        Value {
            name: name.into(),
            type_name: type_name.into(),
            value: value.into(),
            status: Status::Exact,
            children: Vec::new(),
            key: None,
            scalar: None,
            facts: Facts::default(),
        }
    }

    /// No value, and why.
    pub fn missing(name: impl Into<String>, type_name: impl Into<String>, status: Status) -> Value {
        Value { status, ..Value::exact(name, type_name, "") }
    }
}

impl Status {
    /// Whether the text of the value is what the program had (though there may be more).
    pub fn is_shown(&self) -> bool {
        matches!(self, Status::Exact | Status::Truncated { .. })
    }

    /// The status for a person, in angle brackets; empty when exact.
    pub fn note(&self) -> String {
        match self {
            Status::Exact => String::new(),
            Status::Partial { detail } => format!("<partial: {detail}>"),
            Status::Suspect { detail } => format!("<suspect: {detail}>"),
            Status::OptimisedOut => "<optimised out>".to_owned(),
            Status::Truncated { detail } => format!("<truncated: {detail}>"),
            Status::Unreadable { detail } => format!("<unreadable: {detail}>"),
            Status::Redacted => "<redacted>".to_owned(),
            Status::NotCaptured { detail } => format!("<not captured: {detail}>"),
        }
    }
}
