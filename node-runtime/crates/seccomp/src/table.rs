//! Names and numbers of system calls. The facts are in `syscalls.txt`.
use crate::arch::{ALL, Arch};
use std::sync::OnceLock;

/// Bit that marks a system call as one of x32 (`__X32_SYSCALL_BIT`, `asm/unistd.h`).
pub(crate) const X32_BIT: u32 = 0x4000_0000;
/// First number of ARM's private calls (`__ARM_NR_BASE`, `arch/arm/include/uapi/asm/unistd.h`), far above all others.
pub(crate) const ARM_PRIVATE: u32 = 0xf_0000;

/// Names that other architectures have, so that profiles written for all of them are understood. From the kernel's tables
/// of powerpc, s390, mips, riscv, sparc, parisc, alpha and from libseccomp's aliases.
const ELSEWHERE: &str = "cachectl getpagesize getxgid getxpid getxuid kern_features lws_entry memory_ordering multiplexer \
    osf_syscall perfctr riscv_flush_icache riscv_hwprobe rtas s390_guarded_storage s390_pci_mmio_read \
    s390_pci_mmio_write s390_runtime_instr s390_sthyi spu_create spu_run subpage_prot swapcontext switch_endian \
    sys_debug_setcontext sysmips timerfd utrap_install";

/// A system call.
pub(crate) struct Row {
    name: &'static str,
    numbers: [Option<u32>; ALL.len()],
}

impl Row {
    /// Its number on an architecture, x32's with its bit.
    pub(crate) fn number(&self, arch: Arch) -> Option<u32> {
        let column = ALL.iter().position(|a| *a == arch)?;
        self.numbers[column].map(|nr| if arch == Arch::X32 { nr | X32_BIT } else { nr })
    }
}

fn rows() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| include_str!("syscalls.txt").lines().filter_map(row).collect())
}

fn row(line: &'static str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace();
    let name = words.next().filter(|name| !name.starts_with('#'))?;
    let mut numbers = [None; ALL.len()];
    for number in &mut numbers {
        *number = words.next().and_then(|word| word.parse().ok());
    }
    Some(Row { name, numbers })
}

/// The system call of that name.
pub(crate) fn find(name: &str) -> Option<&'static Row> {
    let rows = rows();
    rows.binary_search_by(|row| row.name.cmp(name)).ok().map(|index| &rows[index])
}

/// The number of a system call on an architecture, x32's with its bit. `None` where there is none of that name.
pub fn number(arch: Arch, name: &str) -> Option<u32> {
    find(name)?.number(arch)
}

/// Some architecture has a system call of this name.
pub(crate) fn is_known(name: &str) -> bool {
    find(name).is_some() || ELSEWHERE.split_ascii_whitespace().any(|known| known == name)
}

#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    rows().iter().map(|row| row.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_table_is_sorted_whole_and_without_doubles() {
        let all: Vec<_> = names().collect();
        assert!(all.is_sorted() && all.windows(2).all(|pair| pair[0] != pair[1]));
        let text_lines = include_str!("syscalls.txt").lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(all.len(), text_lines);
        for line in include_str!("syscalls.txt").lines().filter(|line| !line.starts_with('#')) {
            assert_eq!(line.split(' ').count(), 1 + ALL.len(), "{line}");
        }
    }

    #[test]
    fn well_known_numbers() {
        for (arch, name, nr) in [
            (Arch::X86_64, "read", Some(0)),
            (Arch::X86_64, "clone3", Some(435)),
            (Arch::X86, "exit", Some(1)),
            (Arch::X86, "socketcall", Some(102)),
            (Arch::X86_64, "socketcall", None),
            (Arch::X32, "read", Some(0x4000_0000)),
            (Arch::X32, "execve", Some(0x4000_0000 + 520)),
            (Arch::Aarch64, "openat", Some(56)),
            (Arch::Aarch64, "open", None),
            (Arch::Arm, "set_tls", Some(0xf_0005)),
            (Arch::X86_64, "not_a_call", None),
        ] {
            assert_eq!(number(arch, name), nr, "{arch:?} {name}");
        }
    }

    /// `#define __NR_name number` lines of a header.
    fn header(path: &str) -> Option<BTreeMap<String, u32>> {
        let text = std::fs::read_to_string(path).ok()?;
        let defines = text.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
            let number = rest.trim().trim_start_matches("(__X32_SYSCALL_BIT + ").trim_end_matches(')');
            Some((name.to_owned(), number.parse().ok()?))
        });
        Some(defines.collect())
    }

    /// Compares with the kernel headers that are installed. Where a machine has none, the numbers above are what is checked:
    /// this test says which headers it saw.
    #[test]
    fn the_table_agrees_with_installed_headers() {
        let x86 = ["/usr/include/x86_64-linux-gnu/asm", "/usr/include/asm"];
        let candidates: Vec<(Arch, String)> = x86
            .iter()
            .flat_map(|dir| {
                [(Arch::X86_64, "unistd_64.h"), (Arch::X86, "unistd_32.h"), (Arch::X32, "unistd_x32.h")]
                    .map(|(arch, file)| (arch, format!("{dir}/{file}")))
            })
            .chain([(Arch::Aarch64, "/usr/include/asm-generic/unistd.h".to_owned())])
            .collect();
        for (arch, path) in candidates {
            let Some(defines) = header(&path) else { continue };
            println!("{path}: {} names", defines.len());
            assert!(defines.len() > 200, "{path}: only {} names were understood", defines.len());
            for (name, nr) in defines {
                // Marks of the generic header, and calls that it has for 32-bit architectures only (those with 64-bit times).
                let marks = ["syscalls", "arch_specific_syscall", "sync_file_range2"];
                if arch == Arch::Aarch64 && (marks.contains(&name.as_str()) || (403..=423).contains(&nr)) {
                    continue;
                }
                let ours = number(arch, &name).map(|n| if arch == Arch::X32 { n & !X32_BIT } else { n });
                assert_eq!(ours, Some(nr), "{path}: {name}");
            }
        }
    }
}
