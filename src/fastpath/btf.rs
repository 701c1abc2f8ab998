//! The kernel's description of its own structures (BTF): where in a structure a member is. Source: the kernel's
//! `Documentation/bpf/btf.rst`.
//!
//! The programs read a few members of structures that differ from kernel to kernel. Those of connection tracking may be
//! in a module, whose description continues that of the kernel. `aya` relocates by the kernel's description alone, so
//! the offsets are read here.

/// Marks a description, in the byte order of this machine.
const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// The deepest nesting of structures without a name that is followed.
const MAX_DEPTH: usize = 16;

/// Why a description cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a description, or one that ends too early.
    #[error("it is damaged, or of an unknown format")]
    Malformed,
    /// The kernel was built with another structure.
    #[error("it has no member {path} in struct {structure}")]
    NoMember {
        /// The structure.
        structure: &'static str,
        /// The names that lead to the member, with dots.
        path: String,
    },
    /// A structure that the programs know as a whole differs.
    #[error("its struct {structure} is not as expected")]
    Unexpected {
        /// The structure.
        structure: &'static str,
    },
}

/// The types of the kernel, or of the kernel and a module.
#[derive(Debug, Clone)]
pub(super) struct Btf {
    /// By number; the first is `void`.
    types: Vec<Type>,
    strings: Vec<u8>,
}

/// A type as far as it matters: its kind, its name, its members.
#[derive(Debug, Clone)]
struct Type {
    kind: u32,
    /// Where its name begins in the strings.
    name: u32,
    /// Bytes of a structure; of a modifier, the number of the type that it modifies.
    size_or_target: u32,
    members: Vec<Member>,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    name: u32,
    kind: u32,
    /// In bits, from the beginning of the structure.
    offset: u32,
}

/// Reads numbers one after the other.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u32(&mut self) -> Result<u32, Error> {
        let (number, rest) = self.0.split_first_chunk().ok_or(Error::Malformed)?;
        self.0 = rest;
        Ok(u32::from_ne_bytes(*number))
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Error> {
        self.0 = self.0.get(bytes..).ok_or(Error::Malformed)?;
        Ok(())
    }
}

impl Btf {
    /// Reads the description of the kernel itself.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let void = Type { kind: 0, name: 0, size_or_target: 0, members: Vec::new() };
        Self { types: vec![void], strings: Vec::new() }.extended_by(bytes)
    }

    /// Adds the description of a module, whose numbers continue those of the kernel.
    pub(super) fn extended_by(mut self, bytes: &[u8]) -> Result<Self, Error> {
        let magic = bytes.first_chunk().copied().map(u16::from_ne_bytes);
        let mut header = Reader(bytes.get(4..24).ok_or(Error::Malformed)?);
        let [length, types, types_length, strings, strings_length] =
            [header.u32()?, header.u32()?, header.u32()?, header.u32()?, header.u32()?].map(|number| number as usize);
        let part = |offset: usize, size: usize| {
            let begin = length.checked_add(offset)?;
            bytes.get(begin..begin.checked_add(size)?)
        };
        if magic != Some(MAGIC) {
            return Err(Error::Malformed);
        }
        self.strings.extend_from_slice(part(strings, strings_length).ok_or(Error::Malformed)?);
        let mut reader = Reader(part(types, types_length).ok_or(Error::Malformed)?);
        while !reader.0.is_empty() {
            self.types.push(read_type(&mut reader)?);
        }
        Ok(self)
    }

    /// Where a member begins, in bits from the beginning of the structure. `path` has the names of members that lead to
    /// it, each in the one before.
    pub(super) fn offset_in_bits(&self, structure: &'static str, path: &[&str]) -> Result<u32, Error> {
        let missing = || Error::NoMember { structure, path: path.join(".") };
        let mut current = self.structure(structure).ok_or_else(missing)?;
        let mut offset = 0_u32;
        for (index, name) in path.iter().enumerate() {
            let member = self.member(current, name, 0).ok_or_else(missing)?;
            offset = offset.checked_add(member.offset).ok_or_else(missing)?;
            if index + 1 < path.len() {
                current = self.aggregate(member.kind).ok_or_else(missing)?;
            }
        }
        Ok(offset)
    }

    /// Bytes of a structure.
    pub(super) fn size(&self, structure: &'static str) -> Option<u32> {
        self.structure(structure).map(|found| found.size_or_target)
    }

    fn structure(&self, name: &str) -> Option<&Type> {
        self.types.iter().find(|candidate| candidate.kind == STRUCT && self.is_name(candidate.name, name))
    }

    /// A member, with its offset in the whole, wherever in members without a name it is.
    fn member(&self, of: &Type, name: &str, depth: usize) -> Option<Member> {
        of.members.iter().find_map(|member| {
            if self.is_name(member.name, name) {
                return Some(*member);
            }
            if depth == MAX_DEPTH || !self.is_name(member.name, "") {
                return None;
            }
            let inner = self.member(self.aggregate(member.kind)?, name, depth + 1)?;
            Some(Member { offset: member.offset.checked_add(inner.offset)?, ..inner })
        })
    }

    /// The structure or union of this number, behind names and qualifiers.
    fn aggregate(&self, number: u32) -> Option<&Type> {
        let mut found = self.types.get(number as usize)?;
        for _ in 0..MAX_DEPTH {
            match found.kind {
                STRUCT | UNION => return Some(found),
                // typedef, volatile, const, restrict, and a tag.
                8..=11 | 18 => found = self.types.get(found.size_or_target as usize)?,
                _ => return None,
            }
        }
        None
    }

    fn is_name(&self, begin: u32, name: &str) -> bool {
        let rest = self.strings.get(begin as usize..).unwrap_or_default();
        rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn read_type(reader: &mut Reader<'_>) -> Result<Type, Error> {
    let (name, info, size_or_target) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let (count, kind, has_bitfields) = ((info & 0xffff) as usize, info >> 24 & 0x1f, info >> 31 == 1);
    let mut members = Vec::new();
    match kind {
        STRUCT | UNION => {
            for _ in 0..count {
                let (name, kind, offset) = (reader.u32()?, reader.u32()?, reader.u32()?);
                // With bit fields the uppermost byte is a size.
                let offset = if has_bitfields { offset & 0x00ff_ffff } else { offset };
                members.push(Member { name, kind, offset });
            }
        }
        // A pointer, a declaration, a typedef, qualifiers, a function, a floating-point number, a tag of a type.
        2 | 7..=12 | 16 | 18 => {}
        // An integer, a variable, a tag of a declaration.
        1 | 14 | 17 => reader.skip(4)?,
        // An array.
        3 => reader.skip(12)?,
        // An enumeration, a function's parameters.
        6 | 13 => reader.skip(8 * count)?,
        // A section of data, an enumeration of 64 bits.
        15 | 19 => reader.skip(12 * count)?,
        _ => return Err(Error::Malformed),
    }
    Ok(Type { kind, name, size_or_target, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEGER: u32 = 1;

    /// A description of these strings and numbers.
    fn description(strings: &str, types: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        let types_length = u32::try_from(4 * types.len()).unwrap();
        let strings_length = u32::try_from(strings.len()).unwrap();
        for number in [24, 0, types_length, types_length, strings_length].iter().chain(types) {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(strings.as_bytes());
        bytes
    }

    /// `struct outer { int first; struct { int inner; int bits:3; }; }`, names at 1, 7, 13 and 19.
    fn outer() -> Vec<u8> {
        let structure = |members: u32| STRUCT << 24 | members;
        let integer = [0, INTEGER << 24, 4, 32];
        let inner = [0, structure(2) | 1 << 31, 8, 13, 1, 0, 19, 1, 3 << 24 | 0x21];
        let whole = [1, structure(2), 12, 7, 1, 0, 0, 2, 32];
        description("\0outer\0first\0inner\0bits\0", &[&integer[..], &inner, &whole].concat())
    }

    #[test]
    fn members_are_found_in_structures_without_a_name_and_bit_fields_have_their_bit() {
        let btf = Btf::parse(&outer()).unwrap();
        let offsets = ["first", "inner", "bits"].map(|name| btf.offset_in_bits("outer", &[name]));
        assert_eq!(offsets, [Ok(0), Ok(32), Ok(65)]);
        assert_eq!(btf.size("outer"), Some(12));
    }

    #[test]
    fn a_modules_description_continues_the_kernels() {
        let kernel = outer();
        // Its strings begin at 24, its types at 4: `struct wide { struct outer whole; }`.
        let module = description("\0wide\0whole\0", &[25, STRUCT << 24 | 1, 12, 30, 3, 0]);
        let btf = Btf::parse(&kernel).unwrap().extended_by(&module).unwrap();
        assert_eq!(btf.offset_in_bits("wide", &["whole", "inner"]), Ok(32));
    }

    #[test]
    fn a_missing_member_has_its_name_and_a_damaged_description_is_refused() {
        let bytes = outer();
        let btf = Btf::parse(&bytes).unwrap();
        let missing = btf.offset_in_bits("outer", &["first", "inner"]);
        assert_eq!(missing, Err(Error::NoMember { structure: "outer", path: "first.inner".to_owned() }));
        for length in 0..bytes.len() {
            assert_eq!(Btf::parse(&bytes[..length]).map(|_| ()), Err(Error::Malformed), "{length} bytes");
        }
    }
}
