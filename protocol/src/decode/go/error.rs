//! What errors say, read from their fields as their `Error` methods would: those of the standard library that are met
//! everywhere. An error of another type is shown by its fields.
//!
//! Source: Go's `errors`, `fmt/errors.go`, `io/fs`, `os/error.go`, `strconv/atoi.go`, `net/url`, `context`.

use super::{field, held, pointee, text};
use crate::expression::quote;
use crate::value::{Scalar, Status, Value};

/// Errors within errors that are looked into.
const NESTING_MAX: usize = 8;

/// The text of an error; `None` where its type is not known here, or not all of it was captured.
pub(super) fn written(value: &Value) -> Option<Vec<u8>> {
    of(value, 0)
}

fn of(error: &Value, nesting: usize) -> Option<Vec<u8>> {
    if nesting == NESTING_MAX || error.status != Status::Exact {
        return None;
    }
    let inner = |name: &str| of(held(field(error, name)?)?, nesting + 1);
    let quoted = |name: &str| Some(quote::text(text(error, name)?).into_bytes());
    let own = |name: &str| text(error, name).map(<[u8]>::to_vec);
    match error.type_name.as_str() {
        "*errors.errorString" => own("s"),
        "*fmt.wrapError" | "*fmt.wrapErrors" | "*encoding/json.SyntaxError" => own("msg"),
        "*io/fs.PathError" => Some(joined(&[own("Op")?, b" ".to_vec(), own("Path")?, b": ".to_vec(), inner("Err")?])),
        "*os.SyscallError" => Some(joined(&[own("Syscall")?, b": ".to_vec(), inner("Err")?])),
        "*os.LinkError" => {
            let space = || b" ".to_vec();
            let names = [own("Op")?, space(), own("Old")?, space(), own("New")?];
            Some(joined(&[joined(&names), b": ".to_vec(), inner("Err")?]))
        }
        "*os/exec.Error" => Some(joined(&[b"exec: ".to_vec(), quoted("Name")?, b": ".to_vec(), inner("Err")?])),
        "*net/url.Error" => Some(joined(&[own("Op")?, b" ".to_vec(), quoted("URL")?, b": ".to_vec(), inner("Err")?])),
        "*strconv.NumError" => {
            let func = joined(&[b"strconv.".to_vec(), own("Func")?, b": parsing ".to_vec()]);
            Some(joined(&[func, quoted("Num")?, b": ".to_vec(), inner("Err")?]))
        }
        "context.deadlineExceededError" => Some(b"context deadline exceeded".to_vec()),
        "*errors.joinError" => {
            let errors = field(error, "errs")?;
            let texts: Option<Vec<_>> =
                pointee(errors).children.iter().map(|error| of(held(error)?, nesting + 1)).collect();
            texts.map(|texts| texts.join(&b'\n'))
        }
        "syscall.Errno" => match error.scalar {
            Some(Scalar::Int(number)) => errno(number),
            _ => None,
        },
        "*net.OpError" => net_operation(error, inner("Err")?),
        _ => None,
    }
}

fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

/// Where it has no addresses: those have methods of their own.
fn net_operation(error: &Value, inner: Vec<u8>) -> Option<Vec<u8>> {
    let is_nil =
        |name: &str| field(error, name).is_some_and(|it| matches!(it.scalar, Some(Scalar::Interface { nil: true })));
    if !is_nil("Source") || !is_nil("Addr") {
        return None;
    }
    let mut out = text(error, "Op")?.to_vec();
    let net = text(error, "Net")?;
    if !net.is_empty() {
        out.push(b' ');
        out.extend(net);
    }
    out.extend(b": ");
    out.extend(inner);
    Some(out)
}

/// Errors of the kernel's calls that programs meet, as Linux numbers and Go words them.
const ERRNO: [(i128, &str); 37] = [
    (1, "operation not permitted"),
    (2, "no such file or directory"),
    (3, "no such process"),
    (4, "interrupted system call"),
    (5, "input/output error"),
    (7, "argument list too long"),
    (9, "bad file descriptor"),
    (10, "no child processes"),
    (11, "resource temporarily unavailable"),
    (12, "cannot allocate memory"),
    (13, "permission denied"),
    (14, "bad address"),
    (16, "device or resource busy"),
    (17, "file exists"),
    (18, "invalid cross-device link"),
    (20, "not a directory"),
    (21, "is a directory"),
    (22, "invalid argument"),
    (23, "too many open files in system"),
    (24, "too many open files"),
    (27, "file too large"),
    (28, "no space left on device"),
    (30, "read-only file system"),
    (32, "broken pipe"),
    (36, "file name too long"),
    (38, "function not implemented"),
    (39, "directory not empty"),
    (95, "operation not supported"),
    (98, "address already in use"),
    (99, "cannot assign requested address"),
    (101, "network is unreachable"),
    (103, "software caused connection abort"),
    (104, "connection reset by peer"),
    (107, "transport endpoint is not connected"),
    (110, "connection timed out"),
    (111, "connection refused"),
    (113, "no route to host"),
];

fn errno(number: i128) -> Option<Vec<u8>> {
    ERRNO.iter().find(|&&(known, _)| known == number).map(|(_, text)| text.as_bytes().to_vec())
}
