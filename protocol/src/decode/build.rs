//! Types and bytes to values.

use super::code::{self, CodeNames};
use super::go;
use super::memory::{End, Place, missing, read};
use super::native;
use super::text;
use crate::expression::quote;
use crate::fleet::Language;
use crate::hit::{Frame, RawHit};
use crate::ids::Avma;
use crate::layout::{FIELD_LIMIT, Field, Layout, REDACTED, Type, TypeIndex, TypeKind};
use crate::limits;
use crate::value::{Number, Scalar, Status, Value};

/// Longest string or slice that is believed, in bytes: beyond it no address space goes.
const BYTES_PLAUSIBLE_MAX: u64 = 1 << 48;
/// Most aliases of aliases: Go and C name types of types, not hundreds of them.
const ALIASES_MAX: usize = 32;

/// Builds the values of one hit within its budgets.
pub(super) struct Builder<'a> {
    pub(super) layout: &'a Layout,
    pub(super) raw: &'a RawHit,
    names: Option<&'a dyn CodeNames>,
    pub(super) nodes_left: usize,
    pub(super) text_left: usize,
    pub(super) groups_left: usize,
    /// What is being followed now, innermost last: a pointer to one of these leads back.
    pub(super) following: Vec<(u64, TypeIndex)>,
}

/// A type behind its aliases.
struct Resolved<'a> {
    /// Name of the outermost alias.
    name: &'a str,
    index: TypeIndex,
    ty: &'a Type,
}

impl<'a> Builder<'a> {
    pub(super) fn new(layout: &'a Layout, raw: &'a RawHit, names: Option<&'a dyn CodeNames>) -> Builder<'a> {
        Builder {
            layout,
            raw,
            names,
            nodes_left: limits::VALUE_NODES_MAX,
            text_left: limits::VALUE_TEXT_BYTES_MAX,
            groups_left: go::GROUPS_MAX,
            following: Vec::new(),
        }
    }

    /// The frames at an address of code, innermost first; none where nobody has told.
    pub(super) fn frames(&self, address: u64) -> &'a [Frame] {
        self.names.and_then(|names| names.frames(Avma(address))).unwrap_or_default()
    }

    /// The name of a type; empty when the layout has no such type.
    pub(super) fn type_name(&self, index: TypeIndex) -> &'a str {
        self.layout.ty(index).map_or("", |ty| ty.name.as_str())
    }

    /// A variable whose bytes are in `place`.
    pub(super) fn variable(&mut self, name: &str, ty: TypeIndex, place: Place<'a>) -> Value {
        let fits = self.resolve(ty).is_some_and(|resolved| resolved.ty.bytes == place.bytes.len() as u64);
        if fits {
            self.value(name.to_owned(), ty, place, 0)
        } else {
            Value::missing(name, self.type_name(ty), missing(End::Mismatch))
        }
    }

    fn resolve(&self, index: TypeIndex) -> Option<Resolved<'a>> {
        let name = self.layout.ty(index)?.name.as_str();
        let mut index = index;
        for _ in 0..ALIASES_MAX {
            let ty = self.layout.ty(index)?;
            match ty.kind {
                TypeKind::Alias { to } => index = to,
                _ => return Some(Resolved { name, index, ty }),
            }
        }
        None
    }

    /// A type behind its aliases, and the name of the outermost one.
    pub(super) fn resolved(&self, index: TypeIndex) -> Option<(&'a str, &'a Type)> {
        self.resolve(index).map(|resolved| (resolved.name, resolved.ty))
    }

    /// Size of a type's values; `None` where the layout has no such type.
    pub(super) fn bytes_of(&self, index: TypeIndex) -> Option<u64> {
        Some(self.resolve(index)?.ty.bytes)
    }

    pub(super) fn value(&mut self, name: String, ty: TypeIndex, place: Place<'a>, depth: usize) -> Value {
        self.nodes_left = self.nodes_left.saturating_sub(1);
        let Some(resolved) = self.resolve(ty) else {
            return Value::missing(name, self.type_name(ty), missing(End::Mismatch));
        };
        let mut value = Value::exact(name, resolved.name, "");
        if depth >= limits::VALUE_DEPTH_MAX {
            value.status = Status::Truncated { detail: format!("nested more than {depth} deep") };
            return value;
        }
        match self.fill(&mut value, &resolved, place, depth) {
            Ok(()) => {
                if resolved.name.starts_with("time.")
                    && let Some(text) = go::written(&value)
                {
                    value.value = text;
                }
            }
            Err(status) => value.status = status,
        }
        value
    }

    /// Fills in everything but the name and type. An error is the status of a value that is not there.
    fn fill(&mut self, value: &mut Value, ty: &Resolved<'a>, place: Place<'a>, depth: usize) -> Result<(), Status> {
        match &ty.ty.kind {
            TypeKind::Signed => {
                let number = signed(place, ty.ty.bytes)?;
                value.value =
                    if ty.name == "rune" || ty.name == "char" { with_character(number) } else { number.to_string() };
                value.scalar = Some(Scalar::Int(number));
                value.facts.number = Some(Number::Signed { bits: bits(ty.ty) });
            }
            TypeKind::Unsigned => {
                let number = unsigned(place, ty.ty.bytes)?;
                value.value = number.to_string();
                value.scalar = i128::try_from(number).ok().map(Scalar::Int);
                value.facts.number = Some(Number::Unsigned { bits: bits(ty.ty) });
            }
            TypeKind::Float => {
                let number = float(place, ty.ty.bytes)?;
                value.value = quote::float(number, ty.ty.bytes == 4);
                value.scalar = Some(Scalar::Float(number));
                value.facts.number = Some(Number::Float { bits: bits(ty.ty) });
            }
            TypeKind::Complex => {
                let half = ty.ty.bytes / 2;
                let real = quote::float(float(place.part(0, half), half)?, half == 4);
                let imaginary = quote::float(float(place.part(half, half), half)?, half == 4);
                let sign = if imaginary.starts_with(['-', '+']) { "" } else { "+" };
                value.value = format!("({real}{sign}{imaginary}i)");
            }
            TypeKind::Bool => match place.array()? {
                [0] => set_bool(value, false),
                [1] => set_bool(value, true),
                [other] => return Err(Status::Suspect { detail: format!("the byte of a truth value is {other}") }),
            },
            TypeKind::Enum { signed: is_signed, names } => {
                let number = if *is_signed {
                    signed(place, ty.ty.bytes)?
                } else {
                    i128::try_from(unsigned(place, ty.ty.bytes)?).unwrap_or(i128::MAX)
                };
                value.value = match self.layout.language {
                    Language::Go => go::constant(number, names),
                    _ => native::enum_text(number, names),
                };
                value.scalar = Some(Scalar::Int(number));
                value.facts.number = Some(if *is_signed {
                    Number::Signed { bits: bits(ty.ty) }
                } else {
                    Number::Unsigned { bits: bits(ty.ty) }
                });
            }
            TypeKind::Pointer { to } => {
                let address = place.word(0)?;
                self.pointer(value, address, *to, depth);
            }
            TypeKind::GoString => self.string(value, place.word(0)?, place.word(8)?)?,
            TypeKind::GoSlice { element } => {
                self.slice(value, *element, [place.word(0)?, place.word(8)?, place.word(16)?], depth)?;
            }
            TypeKind::Array { element, count } => self.array(value, *element, *count, place, depth)?,
            TypeKind::Struct { fields } => self.structure(value, fields, place, depth),
            TypeKind::GoInterface { empty, cases, others } => {
                self.interface(value, *empty, (cases, others), place, depth)?;
            }
            TypeKind::GoMap { key, element, form } => self.map(value, (*key, *element), form, place, depth)?,
            TypeKind::GoChan { element, form } => self.chan(value, *element, form, place, depth)?,
            TypeKind::GoFunc { functions } => self.func(value, functions, place, depth)?,
            TypeKind::Native(kind) => self.native(value, kind, ty.ty, place, depth)?,
            TypeKind::ReturnAddress => {
                let address = place.word(0)?;
                value.value = match self.frames(address.wrapping_sub(1)).first() {
                    Some(frame) => code::written(frame),
                    None => format!("{address:#x}"),
                };
                value.scalar = Some(Scalar::Address(address));
            }
            TypeKind::Opaque { what } if what == REDACTED => return Err(Status::Redacted),
            TypeKind::Opaque { what } if what == FIELD_LIMIT => {
                return Err(Status::NotCaptured { detail: "it is beyond the limit of fields".to_owned() });
            }
            TypeKind::Opaque { what } => {
                return Err(Status::NotCaptured { detail: format!("RipTrace does not read {what} values yet") });
            }
            // `resolve` leaves no alias.
            TypeKind::Alias { .. } => return Err(missing(End::Mismatch)),
        }
        Ok(())
    }

    pub(super) fn pointer(&mut self, value: &mut Value, address: u64, to: Option<TypeIndex>, depth: usize) {
        value.scalar = Some(Scalar::Address(address));
        let go = self.layout.language == Language::Go;
        if address == 0 {
            value.value = if go { "nil" } else { "0x0" }.to_owned();
            return;
        }
        value.value = match value.type_name.as_str() {
            _ if !go => format!("{address:#x}"),
            name if name.starts_with(['*', '<']) => format!("({name})({address:#x})"),
            name => format!("{name}({address:#x})"),
        };
        let Some((to, resolved)) = to.and_then(|to| Some((to, self.resolve(to)?))) else {
            return;
        };
        let name = format!("*{}", value.name);
        let pointee = if self.following.contains(&(address, resolved.index)) {
            self.untaken(name, to, Status::NotCaptured { detail: "it is shown further up: this points back".into() })
        } else {
            let place = read(&self.raw.chunks, address, resolved.ty.bytes);
            match place.end {
                End::Uncovered if place.bytes.is_empty() => {
                    let detail = "the pointer was not followed (limits: depth, bytes per hit)".to_owned();
                    self.untaken(name, to, Status::NotCaptured { detail })
                }
                _ => {
                    self.following.push((address, resolved.index));
                    let pointee = self.value(name, to, place, depth + 1);
                    self.following.pop();
                    pointee
                }
            }
        };
        if go && pointee.status.is_shown() && !pointee.value.is_empty() {
            value.value = format!("*{}", pointee.value);
        }
        value.children.push(pointee);
    }

    fn untaken(&self, name: String, ty: TypeIndex, status: Status) -> Value {
        Value::missing(name, self.type_name(ty), status)
    }

    pub(super) fn string(&mut self, value: &mut Value, address: u64, len: u64) -> Result<(), Status> {
        plausible("string", address, len, len)?;
        let place = read(&self.raw.chunks, address, len);
        let shown = &place.bytes[..place.bytes.len().min(self.text_left)];
        self.text_left -= shown.len();
        if shown.len() as u64 == len {
            value.value = quote::text(shown);
            value.scalar = Some(Scalar::Text(shown.to_vec()));
            return Ok(());
        }
        value.scalar = Some(Scalar::TextPart { shown: shown.to_vec(), len });
        // A character that the limit cut in two is left out, not shown as stray bytes.
        let whole = whole_characters(shown);
        if !whole.is_empty() {
            value.value = format!("{}...+{} more", quote::text(whole), len - whole.len() as u64);
        }
        value.status = match place.end {
            End::Fault(address) => Status::Unreadable { detail: format!("{address:#x}") },
            _ => Status::Truncated { detail: format!("{} of {len} bytes", shown.len()) },
        };
        Ok(())
    }

    fn slice(
        &mut self,
        value: &mut Value,
        element: TypeIndex,
        [address, len, cap]: [u64; 3],
        depth: usize,
    ) -> Result<(), Status> {
        let element_bytes = self.resolve(element).ok_or_else(|| missing(End::Mismatch))?.ty.bytes;
        if len > cap {
            return Err(Status::Suspect { detail: format!("its length {len} is beyond its capacity {cap}") });
        }
        plausible("slice", address, cap, cap.saturating_mul(element_bytes.max(1)))?;
        value.scalar = Some(Scalar::Sequence { len, cap: Some(cap), nil: address == 0 });
        let head = format!("{} len: {len}, cap: {cap}", text::short_type(&value.type_name));
        if address == 0 {
            value.value = format!("{head}, nil");
            return Ok(());
        }
        let place = read(&self.raw.chunks, address, len.saturating_mul(element_bytes));
        self.elements(value, (element, element_bytes), len, place, depth);
        value.value = format!("{head}, {}", elements_text(&value.children, len));
        Ok(())
    }

    fn array(
        &mut self,
        value: &mut Value,
        element: TypeIndex,
        count: u64,
        place: Place<'a>,
        depth: usize,
    ) -> Result<(), Status> {
        let element_bytes = self.resolve(element).ok_or_else(|| missing(End::Mismatch))?.ty.bytes;
        value.scalar = Some(Scalar::Sequence { len: count, cap: None, nil: false });
        let wanted = count.saturating_mul(element_bytes);
        self.elements(value, (element, element_bytes), count, place.part(0, wanted), depth);
        value.value = format!("{} {}", text::short_type(&value.type_name), elements_text(&value.children, count));
        Ok(())
    }

    /// Adds the elements that are there, and sets the status when they are not all.
    pub(super) fn elements(
        &mut self,
        value: &mut Value,
        (element, element_bytes): (TypeIndex, u64),
        len: u64,
        place: Place<'a>,
        depth: usize,
    ) {
        let available = (place.bytes.len() as u64).checked_div(element_bytes).unwrap_or(len).min(len);
        for index in 0..available.min(limits::VALUE_CHILDREN_MAX as u64) {
            if self.nodes_left == 0 {
                break;
            }
            let part = place.part(index * element_bytes, element_bytes);
            let child = self.value(format!("[{index}]"), element, part, depth + 1);
            value.children.push(child);
        }
        let listed = value.children.len() as u64;
        if listed == len {
            return;
        }
        value.status = match place.end {
            End::Fault(address) if listed == available => Status::Unreadable { detail: format!("{address:#x}") },
            End::Mismatch => missing(End::Mismatch),
            _ => Status::Truncated { detail: format!("{listed} of {len} elements") },
        };
    }

    pub(super) fn structure(&mut self, value: &mut Value, fields: &'a [Field], place: Place<'a>, depth: usize) {
        for field in fields.iter().take(limits::VALUE_CHILDREN_MAX) {
            if self.nodes_left == 0 {
                break;
            }
            let bytes = self.resolve(field.ty).map_or(0, |resolved| resolved.ty.bytes);
            let part = place.part(field.offset, bytes);
            let mut child = self.value(field.name.clone(), field.ty, part, depth + 1);
            child.facts.embedded = field.embedded;
            value.children.push(child);
        }
        let all = value.children.len() == fields.len();
        let is_beyond = |field: &&Field| match self.layout.ty(field.ty).map(|ty| &ty.kind) {
            Some(TypeKind::Opaque { what }) => what == FIELD_LIMIT,
            _ => false,
        };
        let beyond = fields.iter().take(value.children.len()).filter(is_beyond).count();
        if !all || beyond > 0 {
            let detail = format!("{} of {} fields", value.children.len() - beyond, fields.len());
            value.status = Status::Truncated { detail };
        } else if place.end != End::Whole {
            value.status = match place.end {
                End::Limit | End::Uncovered => {
                    Status::Truncated { detail: format!("{} bytes of it were captured", place.bytes.len()) }
                }
                end => missing(end),
            };
        }
        value.value = native::of_tuple(&value.type_name, fields, &value.children)
            .unwrap_or_else(|| text::of_struct(&value.type_name, &value.children, all));
    }
}

fn set_bool(value: &mut Value, truth: bool) {
    value.value = truth.to_string();
    value.scalar = Some(Scalar::Bool(truth));
}

/// Go keeps `nil` only where there is nothing, and no object is larger than the address space.
pub(super) fn plausible(what: &str, address: u64, count: u64, bytes: u64) -> Result<(), Status> {
    if bytes > BYTES_PLAUSIBLE_MAX {
        return Err(Status::Suspect { detail: format!("a {what} of {count} cannot be") });
    }
    if address == 0 && count > 0 {
        return Err(Status::Suspect { detail: format!("a {what} of {count} at nil cannot be") });
    }
    Ok(())
}

/// The elements as a list, or as text where they are bytes of a text: shorter, and what people look for.
pub(super) fn elements_text(elements: &[Value], len: u64) -> String {
    let byte = |element: &Value| match (&element.scalar, element.facts.number) {
        (Some(Scalar::Int(byte)), Some(Number::Unsigned { bits: 8 })) => u8::try_from(*byte).ok(),
        _ => None,
    };
    let bytes: Vec<u8> = elements.iter().map_while(byte).take(limits::SUMMARY_BYTES_MAX).collect();
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    let whole = whole_characters(&bytes);
    match std::str::from_utf8(whole) {
        Ok(text) if !text.is_empty() && bytes.len() == elements.len().min(limits::SUMMARY_BYTES_MAX) => {
            if !text.chars().all(printable) {
                return text::of_elements(elements, len);
            }
            let more = len - whole.len() as u64;
            let tail = if more == 0 { String::new() } else { format!("...+{more} more") };
            format!("{}{tail}", quote::text(whole))
        }
        _ => text::of_elements(elements, len),
    }
}

/// The bytes without a character at the end that is cut in two.
pub(super) fn whole_characters(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    }
}

fn bits(ty: &Type) -> u16 {
    // Only 1 to 16 bytes come this far.
    u16::try_from(ty.bytes.saturating_mul(8)).unwrap_or(u16::MAX)
}

fn with_character(number: i128) -> String {
    match u32::try_from(number).ok().and_then(char::from_u32) {
        Some(c) => format!("{number} {}", quote::rune(c)),
        None => number.to_string(),
    }
}

fn unknown_size(what: &str, bytes: u64) -> Status {
    Status::NotCaptured { detail: format!("RipTrace cannot read {what} of {bytes} bytes yet") }
}

fn signed(place: Place<'_>, bytes: u64) -> Result<i128, Status> {
    Ok(match bytes {
        1 => i8::from_le_bytes(place.array()?).into(),
        2 => i16::from_le_bytes(place.array()?).into(),
        4 => i32::from_le_bytes(place.array()?).into(),
        8 => i64::from_le_bytes(place.array()?).into(),
        16 => i128::from_le_bytes(place.array()?),
        _ => return Err(unknown_size("an integer", bytes)),
    })
}

fn unsigned(place: Place<'_>, bytes: u64) -> Result<u128, Status> {
    Ok(match bytes {
        1 => u8::from_le_bytes(place.array()?).into(),
        2 => u16::from_le_bytes(place.array()?).into(),
        4 => u32::from_le_bytes(place.array()?).into(),
        8 => u64::from_le_bytes(place.array()?).into(),
        16 => u128::from_le_bytes(place.array()?),
        _ => return Err(unknown_size("an integer", bytes)),
    })
}

fn float(place: Place<'_>, bytes: u64) -> Result<f64, Status> {
    match bytes {
        4 => Ok(f32::from_le_bytes(place.array()?).into()),
        8 => Ok(f64::from_le_bytes(place.array()?)),
        _ => Err(unknown_size("a float", bytes)),
    }
}
