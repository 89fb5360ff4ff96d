//! Which types a Go interface may hold: the types of the build that the runtime describes, and which methods they have.
//!
//! The word of an interface is the address of the runtime's description of its dynamic type (`abi.Type`), directly or in
//! an `abi.ITab`. The debug information gives, for each type that has one, its offset from `runtime.types`
//! (`DW_AT_go_runtime_type`); Delve does the same (`pkg/proc/bininfo.go`, `runtimeTypeToDIE`). Whether a type has the
//! methods of an interface is read from the descriptions, in the executable file (`internal/abi/type.go`; the layout of
//! `Type`, `InterfaceType`, `UncommonType`, `Method` and `Imethod` is the same from Go 1.21 to 1.27, the flag for values
//! that lie in the interface itself moved from `Kind_` to `TFlag` in 1.26).
//!
//! It proposes, it does not decide: a type that is missing here is shown as unknown where it is met.

use super::go;
use crate::symbols::debug_info::{Die, View};
use crate::symbols::image::Image;
pub(crate) use crate::symbols::landmarks::Described;
use crate::symbols::landmarks::{DescribedTypes, Landmarks};
use crate::symbols::{Build, ResolveError, Svma};
use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

/// Methods of one type that are read, at most: the largest generated ones have some thousand.
const METHODS_MAX: usize = 4096;
/// Bytes of the executable that are read at once: descriptions lie side by side.
const WINDOW_BYTES: u64 = 64 * 1024;

/// Bytes of `abi.Type`.
const TYPE_BYTES: u64 = 48;
/// `abi.TFlagUncommon`.
const FLAG_UNCOMMON: u8 = 1;
/// `abi.KindDirectIface` before Go 1.26, `abi.TFlagDirectIface` since.
const FLAG_DIRECT: u8 = 1 << 5;
/// `abi.Kind`, without flags.
const KIND_MASK: u8 = (1 << 5) - 1;

/// A type that an interface may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate<'t> {
    /// Address of its description.
    pub(crate) address: Svma,
    /// The value is the interface's second word itself, not behind it.
    pub(crate) direct: bool,
    pub(crate) described: Described<'t>,
}

/// All types of a build that the runtime describes.
#[derive(Debug)]
pub(crate) struct GoTypes {
    /// Address of `runtime.types`.
    types_at: u64,
    /// By their offsets.
    described: DescribedTypes,
    /// Bytes of `abi.MapType`, behind which the methods of map types are.
    map_type_bytes: Option<u64>,
    /// The type of what `runtime/pprof` labels goroutines with.
    pub(crate) labels: Option<Die>,
    /// Types by their methods.
    methods: OnceLock<HashMap<Method, Vec<u32>>>,
}

/// A method: offsets of its name and of its type.
type Method = (u32, u32);

impl GoTypes {
    /// The types of a build; `None` where it does not tell.
    pub(in crate::symbols) fn of(
        view: &View<'_>,
        landmarks: &Landmarks,
        image: &Image,
    ) -> Result<Option<GoTypes>, ResolveError> {
        let types_at = landmarks
            .types_at
            .or_else(|| image.section_range(".go.type").map(|range| range.start))
            .or(types_of_module(view, landmarks, image)?);
        let described = landmarks.described.clone();
        let Some(types_at) = types_at.filter(|_| described.len() > 0) else { return Ok(None) };
        let (map_type_bytes, labels) = (landmarks.map_type_bytes, landmarks.labels);
        Ok(Some(GoTypes { types_at, described, map_type_bytes, labels, methods: OnceLock::new() }))
    }

    /// The types that an interface may hold. `interface` is the type of the interface where it has methods; all types
    /// may be in one without methods, and in one whose methods the build does not tell.
    pub(crate) fn candidates<'t>(
        &'t self,
        view: &View<'_>,
        build: &Build,
        interface: Option<Die>,
    ) -> Result<Vec<Described<'t>>, ResolveError> {
        let mut file = Window::new(&build.image);
        let methods = match interface {
            Some(die) => {
                let (_, entry) = view.entry(die)?;
                go::runtime_type(&entry).and_then(|offset| self.interface_methods(offset, &mut file))
            }
            None => None,
        };
        let Some(methods) = methods.filter(|methods| !methods.is_empty()) else {
            return Ok(self.described.iter().collect());
        };
        let by_method = self.methods.get_or_init(|| self.types_by_method(&mut file));
        let having = |method: &Method| by_method.get(method).map_or(&[][..], Vec::as_slice);
        let Some(rarest) = methods.iter().min_by_key(|method| having(method).len()) else { return Ok(Vec::new()) };
        let mut all: Vec<u32> = having(rarest).to_vec();
        for method in &methods {
            let these: HashSet<u32> = having(method).iter().copied().collect();
            all.retain(|number| these.contains(number));
        }
        Ok(all.iter().filter_map(|&number| self.described.get(number as usize)).collect())
    }

    /// A described type with what the runtime says of it; `None` where it is an interface or cannot be read.
    pub(crate) fn candidate<'t>(&self, described: Described<'t>, build: &Build) -> Option<Candidate<'t>> {
        let at = self.types_at.checked_add(described.offset)?;
        let flags: [u8; 4] = build.image.read(Svma(at.checked_add(20)?), 4).try_into().ok()?;
        // An interface never holds an interface.
        let is_interface = flags[3] & KIND_MASK == 20;
        let direct = (flags[0] | flags[3]) & FLAG_DIRECT != 0;
        (!is_interface).then_some(Candidate { address: Svma(at), direct, described })
    }

    /// The types whose names are meant.
    pub(crate) fn named(&self, mut is_meant: impl FnMut(&str) -> bool) -> Vec<Described<'_>> {
        self.described.iter().filter(|described| is_meant(described.name)).collect()
    }

    /// The type that is described at an address of the file; `None` where there is none.
    pub(crate) fn at(&self, address: u64) -> Option<Die> {
        let offset = address.checked_sub(self.types_at)?;
        self.described.at(offset).map(|described| described.die)
    }

    /// Address of the description of a type.
    pub(crate) fn address(&self, described: Described<'_>) -> Svma {
        Svma(self.types_at.wrapping_add(described.offset))
    }

    /// The methods of an interface type; `None` where they cannot be read.
    fn interface_methods(&self, offset: u64, file: &mut Window<'_>) -> Option<Vec<Method>> {
        let at = self.types_at.checked_add(offset)?;
        // InterfaceType: Type, PkgPath, Methods as a slice.
        let methods_at = file.word(at.checked_add(TYPE_BYTES + 8)?)?;
        let count = file.word(at.checked_add(TYPE_BYTES + 16)?)?;
        if methods_at == 0 || count > METHODS_MAX as u64 {
            return None;
        }
        // Imethod: Name, Typ.
        (0..count).map(|number| file.method(methods_at.checked_add(number * 8)?)).collect()
    }

    fn types_by_method(&self, file: &mut Window<'_>) -> HashMap<Method, Vec<u32>> {
        let mut by_method: HashMap<Method, Vec<u32>> = HashMap::new();
        for (number, described) in (0u32..).zip(self.described.iter()) {
            for method in self.own_methods(described.offset, file).unwrap_or_default() {
                by_method.entry(method).or_default().push(number);
            }
        }
        by_method
    }

    /// The methods of a type that is no interface.
    fn own_methods(&self, offset: u64, file: &mut Window<'_>) -> Option<Vec<Method>> {
        let at = self.types_at.checked_add(offset)?;
        let flags = file.bytes::<4>(at.checked_add(20)?)?;
        if flags[0] & FLAG_UNCOMMON == 0 {
            return None;
        }
        // What lies between the common part and the methods, by reflect.Kind: `reflect.(*rtype).uncommon`.
        let own_bytes = match flags[3] & KIND_MASK {
            17 => 24,                                            // ArrayType
            18 => 16,                                            // ChanType
            19 | 22 | 23 => 8,                                   // FuncType, PtrType, SliceType
            20 => return None,                                   // InterfaceType
            21 => self.map_type_bytes?.checked_sub(TYPE_BYTES)?, // MapType
            25 => 32,                                            // StructType
            _ => 0,
        };
        let uncommon = at.checked_add(TYPE_BYTES + own_bytes)?;
        // UncommonType: PkgPath u32, Mcount u16, Xcount u16, Moff u32.
        let counts = file.bytes::<12>(uncommon)?;
        let count = usize::from(u16::from_le_bytes([counts[4], counts[5]]));
        let methods_at = u64::from(u32::from_le_bytes([counts[8], counts[9], counts[10], counts[11]]));
        let methods_at = uncommon.checked_add(methods_at)?;
        // Method: Name, Mtyp, Ifn, Tfn.
        (0..count.min(METHODS_MAX) as u64).map(|number| file.method(methods_at.checked_add(number * 16)?)).collect()
    }
}

/// `runtime.types` as the runtime's first module knows it, where the symbol is gone.
fn types_of_module(view: &View<'_>, landmarks: &Landmarks, image: &Image) -> Result<Option<u64>, ResolveError> {
    let (Some(die), Some(at)) = (landmarks.module_data, landmarks.module_data_at) else { return Ok(None) };
    let super::Shape::Struct(members) = super::read(view, die)?.shape else { return Ok(None) };
    let member = members.iter().find(|member| member.name == "types");
    let at = member.and_then(|member| at.checked_add(member.offset));
    Ok(at.and_then(|at| Window::new(image).word(at)).filter(|&types| types != 0))
}

/// Reads initialised memory of the executable, a window at a time.
struct Window<'i> {
    image: &'i Image,
    at: u64,
    content: Vec<u8>,
}

impl<'i> Window<'i> {
    fn new(image: &'i Image) -> Window<'i> {
        Window { image, at: 0, content: Vec::new() }
    }

    fn bytes<const N: usize>(&mut self, at: u64) -> Option<[u8; N]> {
        if let Some(found) = self.within(at) {
            return Some(found);
        }
        self.content = self.image.read(Svma(at), WINDOW_BYTES);
        self.at = at;
        self.within(at)
    }

    fn within<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        let from = usize::try_from(at.checked_sub(self.at)?).ok()?;
        self.content.get(from..from.checked_add(N)?)?.try_into().ok()
    }

    fn word(&mut self, at: u64) -> Option<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }

    fn method(&mut self, at: u64) -> Option<Method> {
        let [name, ty] = [at, at.checked_add(4)?].map(|at| self.bytes(at).map(u32::from_le_bytes));
        Some((name?, ty?))
    }
}
