//! Conditions on the arguments of a system call.
use berth_model::{Error, Result};

/// How an argument is compared, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Not equal.
    Ne,
    /// Less than.
    Lt,
    /// Less than or equal.
    Le,
    /// Equal.
    Eq,
    /// Greater than or equal.
    Ge,
    /// Greater than.
    Gt,
    /// `argument & value == value_two`.
    MaskedEq,
}

impl Op {
    /// From `SCMP_CMP_*`. The error names `field`.
    pub(crate) fn parse(field: &str, name: &str) -> Result<Self> {
        Ok(match name {
            "SCMP_CMP_NE" => Self::Ne,
            "SCMP_CMP_LT" => Self::Lt,
            "SCMP_CMP_LE" => Self::Le,
            "SCMP_CMP_EQ" => Self::Eq,
            "SCMP_CMP_GE" => Self::Ge,
            "SCMP_CMP_GT" => Self::Gt,
            "SCMP_CMP_MASKED_EQ" => Self::MaskedEq,
            other => {
                return Err(Error::invalid(
                    field,
                    format_args!(
                        "{other:?} is not a comparison; use SCMP_CMP_NE, _LT, _LE, _EQ, _GE, _GT or _MASKED_EQ"
                    ),
                ));
            }
        })
    }
}

/// One condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub index: u8,
    /// How.
    pub op: Op,
    /// With what: the mask of [`Op::MaskedEq`], else the value.
    pub value: u64,
    /// The value of [`Op::MaskedEq`].
    pub value_two: u64,
}

impl Condition {
    /// The same condition for registers of 32 bits. Values for equality are cut to 32 bits, so that -1 written with 64 bits
    /// means -1 here too (as libseccomp does); order compares whole numbers, the register's upper half being zero.
    #[must_use]
    pub(crate) fn narrowed(self) -> Self {
        let cut = |value| value & 0xffff_ffff;
        match self.op {
            Op::Eq | Op::Ne => Self { value: cut(self.value), ..self },
            Op::MaskedEq => Self { value: cut(self.value), value_two: cut(self.value_two), ..self },
            Op::Lt | Op::Le | Op::Gt | Op::Ge => self,
        }
    }
}
