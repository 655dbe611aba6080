//! Kubernetes quantities (`500m`, `128Mi`, `1e3`, `1.5G`), read exactly: decimal digits are never rounded through a float.
//! Grammar and rounding are those of `k8s.io/apimachinery/pkg/api/resource`: what is finer than asked for rounds up.
use std::fmt;

/// More digits than any quantity needs, and few enough that nothing overflows.
const MAX_DIGITS: usize = 28;
/// Largest exponent of ten that is looked at.
const MAX_EXPONENT: i32 = 40;

/// A quantity that is not negative: `digits * 10^exponent * 2^shift`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    digits: u128,
    exponent: i32,
    shift: u32,
}

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Not of the grammar.
    Malformed,
    /// Below zero.
    Negative,
    /// Does not fit into 63 bits.
    TooLarge,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "is not a quantity; write it as 500m, 1.5, 128Mi or 1G",
            Self::Negative => "must not be negative",
            Self::TooLarge => "is too large",
        })
    }
}

impl Quantity {
    /// Reads a quantity.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let unsigned = match text.strip_prefix('-') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') => return Err(Problem::Negative),
            Some(_) => return Err(Problem::Malformed),
            None => text.strip_prefix('+').unwrap_or(text),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(Problem::Malformed);
        }
        let (exponent, shift) = unit(suffix).ok_or(Problem::Malformed)?;
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction}");
        let digits = digits.trim_start_matches('0');
        if digits.len() > MAX_DIGITS {
            return Err(Problem::TooLarge);
        }
        let digits = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| Problem::Malformed)? };
        let places = i32::try_from(fraction.len()).map_err(|_| Problem::TooLarge)?;
        Ok(Self { digits, exponent: exponent - places, shift })
    }

    /// The value in thousandths, rounded up: millicores of a CPU quantity.
    pub fn milli(self) -> Result<i64, Problem> {
        Self { exponent: self.exponent + 3, ..self }.value()
    }

    /// The value as a whole number, rounded up: bytes of a memory quantity.
    pub fn value(self) -> Result<i64, Problem> {
        if self.digits == 0 {
            return Ok(0);
        }
        if self.exponent > MAX_EXPONENT {
            return Err(Problem::TooLarge);
        }
        let scaled = self.digits.checked_mul(1 << self.shift).ok_or(Problem::TooLarge)?;
        let power = 10u128.checked_pow(self.exponent.unsigned_abs());
        let value = match (self.exponent >= 0, power) {
            (true, Some(power)) => scaled.checked_mul(power).ok_or(Problem::TooLarge)?,
            (true, None) => return Err(Problem::TooLarge),
            (false, Some(power)) => scaled.div_ceil(power),
            (false, None) => 1,
        };
        i64::try_from(value).map_err(|_| Problem::TooLarge)
    }
}

/// Exponent of ten and power of two of a suffix.
fn unit(suffix: &str) -> Option<(i32, u32)> {
    let decimal = |exponent| Some((exponent, 0));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => Some((0, 10)),
        "Mi" => Some((0, 20)),
        "Gi" => Some((0, 30)),
        "Ti" => Some((0, 40)),
        "Pi" => Some((0, 50)),
        "Ei" => Some((0, 60)),
        other => {
            let power = other.strip_prefix(['e', 'E'])?;
            let digits = power.strip_prefix(['+', '-']).unwrap_or(power);
            if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            decimal(power.parse().ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Result<i64, Problem> {
        Quantity::parse(text)?.value()
    }

    fn milli(text: &str) -> Result<i64, Problem> {
        Quantity::parse(text)?.milli()
    }

    #[test]
    fn values_are_those_of_kubernetes() {
        let table: [(&str, i64); 22] = [
            ("0", 0),
            ("128Mi", 134_217_728),
            ("1e3", 1000),
            ("1E3", 1000),
            ("1E", 1_000_000_000_000_000_000),
            ("1G", 1_000_000_000),
            ("1Gi", 1 << 30),
            ("0.5Gi", 1 << 29),
            ("1.5k", 1500),
            (".5k", 500),
            ("5.k", 5000),
            ("+7", 7),
            ("128974848000m", 128_974_848),
            ("100m", 1),
            ("1n", 1),
            ("1e-40", 1),
            ("0e99", 0),
            ("7Ei", 8_070_450_532_247_928_832),
            ("0.1Ki", 103),
            ("1000000000000000000000n", 1_000_000_000_000),
            ("9223372036854775807", i64::MAX),
            ("00012", 12),
        ];
        for (text, wanted) in table {
            assert_eq!(value(text), Ok(wanted), "{text}");
        }
        for (text, wanted) in [("500m", 500), ("0.5", 500), ("2", 2000), ("100u", 1), ("1e3m", -1), ("1k", 1_000_000)] {
            match wanted {
                -1 => assert_eq!(milli(text), Err(Problem::Malformed), "{text}"),
                wanted => assert_eq!(milli(text), Ok(wanted), "{text}"),
            }
        }
    }

    #[test]
    fn the_rest_is_refused() {
        for bad in
            ["", "m", "1K", "1ki", "1 Mi", "1Mi ", "--1", "-", "1.2.3", "1e", "1e+", "1e1234", "0x10", "१", "1,5", "."]
        {
            assert_eq!(value(bad), Err(Problem::Malformed), "{bad:?}");
        }
        assert_eq!(value("-1"), Err(Problem::Negative));
        for large in ["8Ei", "9223372036854775808", "1e19", "1e99", &"9".repeat(40)] {
            assert_eq!(value(large), Err(Problem::TooLarge), "{large}");
        }
        assert_eq!(milli("9223372036854775807"), Err(Problem::TooLarge));
    }

    proptest! {
        #[test]
        fn whole_numbers_read_as_themselves(n in 0..=i64::MAX) {
            prop_assert_eq!(value(&n.to_string()), Ok(n));
            prop_assert_eq!(value(&format!("{n}.000")), Ok(n));
        }
        #[test]
        fn nothing_panics(text in "[0-9.eE+\\-numkMGTPEi]{0,48}") {
            let _ = (value(&text), milli(&text));
        }
    }
}
