//! One-line texts of values that have parts.

use crate::limits::{SUMMARY_BYTES_MAX, SUMMARY_PART_BYTES_MAX};
use crate::value::{Status, Value};

/// A struct: `main.Item {SKU: "a", Qty: 3}`.
pub(super) fn of_struct(type_name: &str, fields: &[Value], listed_all: bool) -> String {
    let mut out = format!("{} {{", short_type(type_name));
    for (index, field) in fields.iter().enumerate() {
        if out.len() >= SUMMARY_BYTES_MAX {
            out.push_str(", ...");
            break;
        }
        if index > 0 {
            out.push_str(", ");
        }
        out.push_str(&field.name);
        out.push_str(": ");
        out.push_str(&part(field));
    }
    if !listed_all {
        out.push_str(if fields.is_empty() { "..." } else { ", ..." });
    }
    out.push('}');
    out
}

/// The elements of an array or slice of `len` elements: `[1,2,...+3 more]`.
pub(crate) fn of_elements(elements: &[Value], len: u64) -> String {
    let mut out = String::from("[");
    let mut listed = 0;
    for element in elements {
        if out.len() >= SUMMARY_BYTES_MAX {
            break;
        }
        if listed > 0 {
            out.push(',');
        }
        out.push_str(&part(element));
        listed += 1;
    }
    if listed < len {
        if listed > 0 {
            out.push(',');
        }
        out.push_str(&format!("...+{} more", len - listed));
    }
    out.push(']');
    out
}

/// The entries of a map of `len` entries: `["a": 1, "b": 2, ...+3 more]`.
pub(super) fn of_entries(entries: &[Value], len: u64) -> String {
    let mut out = String::from("[");
    let mut listed = 0;
    for entry in entries {
        if out.len() >= SUMMARY_BYTES_MAX {
            break;
        }
        if listed > 0 {
            out.push_str(", ");
        }
        let key = entry.name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        out.push_str(key.unwrap_or(&entry.name));
        out.push_str(": ");
        out.push_str(&part(entry));
        listed += 1;
    }
    if listed < len {
        if listed > 0 {
            out.push_str(", ");
        }
        out.push_str(&format!("...+{} more", len - listed));
    }
    out.push(']');
    out
}

/// A value inside the text of another: bounded, and never without its status.
pub(super) fn part(value: &Value) -> String {
    let word = match &value.status {
        Status::Exact | Status::Truncated { .. } => return cut(&value.value, SUMMARY_PART_BYTES_MAX),
        Status::Partial { .. } => "<partial>",
        Status::Suspect { .. } => "<suspect>",
        Status::OptimisedOut => "<optimised out>",
        Status::Unreadable { .. } => "<unreadable>",
        Status::Redacted => "<redacted>",
        Status::NotCaptured { .. } => "<not captured>",
    };
    word.to_owned()
}

/// A type's name as Go code writes it: of a package's path only the last element (`*example.com/shop/cart.Item` is
/// `*cart.Item`). A struct type without a name is as long as its fields: it is not repeated in front of them.
pub(crate) fn short_type(name: &str) -> String {
    if name.starts_with("struct {") && name.len() > "struct {}".len() {
        return "struct {...}".to_owned();
    }
    let in_path = |c: char| c.is_alphanumeric() || "_-.~%/".contains(c);
    let mut short = String::with_capacity(name.len());
    let mut path_at = 0;
    for c in name.chars() {
        if c == '/' {
            short.truncate(path_at);
        } else {
            short.push(c);
            if !in_path(c) {
                path_at = short.len();
            }
        }
    }
    short
}

fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(bytes_max)])
}

#[cfg(test)]
mod tests {
    use super::short_type;

    #[test]
    fn of_a_packages_path_the_last_element_is_shown() {
        for (name, short) in [
            ("*example.com/shop/cart.Item", "*cart.Item"),
            ("[]example.com/a-b/v2.T", "[]v2.T"),
            ("map[string]net/http.Header", "map[string]http.Header"),
            ("main.Pair[example.com/x/y.K,int]", "main.Pair[y.K,int]"),
            ("int", "int"),
            ("struct { A int }", "struct {...}"),
        ] {
            assert_eq!(short_type(name), short);
        }
    }
}
