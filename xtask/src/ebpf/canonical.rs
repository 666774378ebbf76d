//! The object without what tells one build of a compiler from another.
//!
//! Crates' names in symbols carry a hash of the compiler's full version, the LLVM in it included, and DWARF quotes that.
//! The kernel gets neither; names and lines for those who look at a loaded program are in BTF, which has no such hash.

use anyhow::{Context as _, Result};
use object::build::elf::{Builder, SectionData};
use object::elf::{SHT_STRTAB, STB_LOCAL, STT_SECTION};

/// Takes DWARF out of an object, and the hashes out of the names that no other object may use.
///
/// # Errors
/// When it is no object.
pub(super) fn canonical(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("the linker made no object")?;
    for section in &mut builder.sections {
        section.delete =
            [b".debug_".as_slice(), b".rel.debug_"].iter().any(|dwarf| section.name.starts_with(dwarf));
    }
    for symbol in &mut builder.symbols {
        if symbol.st_bind() == STB_LOCAL && symbol.st_type() != STT_SECTION {
            symbol.name = without_hash(std::str::from_utf8(&symbol.name)?).into_bytes().into();
        }
    }
    if !builder.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        // LLVM puts sections' and symbols' names into one table, which the writer keeps apart.
        let names = builder.sections.add();
        names.name = ".shstrtab".into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut canonical = Vec::new();
    builder.write(&mut canonical)?;
    Ok(canonical)
}

/// A constant `anon.HASH.NUMBER` without the module's hash, a mangled name without those of crates (RFC 2603: `Cs`, the
/// hash, `_`); any other name as it is.
fn without_hash(name: &str) -> String {
    if let Some((_hash, number)) = name.strip_prefix("anon.").and_then(|rest| rest.split_once('.')) {
        return format!("anon.{number}");
    }
    if !name.starts_with("_R") {
        return name.to_owned();
    }
    let mut parts = name.split("Cs");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| name + "C" + part.split_once('_').map_or(part, |(_hash, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_hashes_and_nothing_else() {
        assert_eq!(without_hash("anon.7f4543f42082bb28f437ceaaf29f181f.12"), "anon.12");
        assert_eq!(
            without_hash("_RNvNtNtCsjr997B1qOvI_4shed4shed6sample7dropped"),
            "_RNvNtNtC4shed4shed6sample7dropped"
        );
        assert_eq!(without_hash("_RINvCs1_4core3ptrNtCsaB_4shed1TE"), "_RINvC4core3ptrNtC4shed1TE");
        assert_eq!(without_hash("memcmp"), "memcmp");
    }

    #[test]
    fn the_committed_object_is_canonical() {
        let committed = include_bytes!("../../../gateway-ebpf/shed.bpf.o").as_slice();
        assert_eq!(canonical(committed).unwrap(), committed);
        assert!(canonical(b"no object").is_err());
    }
}
