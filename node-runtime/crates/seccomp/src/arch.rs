//! Architectures: their names in profiles and the kernel's numbers for them.

/// An architecture as a filter sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// x86-64 with 32-bit pointers: shares `AUDIT_ARCH_X86_64` and is told by a bit of the number.
    X32,
    /// 64-bit ARM.
    Aarch64,
    /// 32-bit ARM, EABI.
    Arm,
}

/// Every architecture, in the order of the columns of the table of system calls.
pub(crate) const ALL: [Arch; 5] = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];

/// Architectures of the OCI specification that no node of ours has: accepted in lists, without effect.
const FOREIGN: [&str; 16] = [
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
];

impl Arch {
    /// The architecture that this program was built for, if it is one of ours.
    pub const fn native() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// `AUDIT_ARCH_*` (`linux/audit.h`).
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Name in the `arches` of Docker's includes and excludes, which are Go's names.
    pub(crate) fn docker_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// Registers are 32 bits wide: the kernel hands such arguments on with their upper halves zero.
    pub(crate) fn is_32_bit(self) -> bool {
        matches!(self, Self::X86 | Self::Arm)
    }

    /// A process of this native architecture's kernel can make calls of that one.
    pub(crate) fn runs(self, other: Self) -> bool {
        let x86 = |arch| matches!(arch, Self::X86_64 | Self::X86 | Self::X32);
        x86(self) == x86(other)
    }

    /// From `SCMP_ARCH_*`: `Ok(None)` for known architectures that are not ours, `Err` for anything else.
    pub(crate) fn parse(name: &str) -> Result<Option<Self>, ()> {
        match name {
            "SCMP_ARCH_X86_64" => Ok(Some(Self::X86_64)),
            "SCMP_ARCH_X86" => Ok(Some(Self::X86)),
            "SCMP_ARCH_X32" => Ok(Some(Self::X32)),
            "SCMP_ARCH_AARCH64" => Ok(Some(Self::Aarch64)),
            "SCMP_ARCH_ARM" => Ok(Some(Self::Arm)),
            other if FOREIGN.contains(&other) => Ok(None),
            _ => Err(()),
        }
    }
}
