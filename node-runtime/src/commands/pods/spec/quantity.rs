//! Quantities on the command line, as docker's users write them.
//!
//! Must not: know a flag.
use berth_model::{Quantity, QuantityProblem as Problem};

/// A size as docker's users write it (`64m`, `1g`, `512k`, `1024`, powers of 1024), or as a quantity (`64Mi`, `1G`).
pub fn docker_size(text: &str) -> Result<i64, String> {
    let lower = text.strip_suffix(['b', 'B']).unwrap_or(text);
    let (number, suffix) = lower.split_at(lower.len() - usize::from(lower.ends_with(['k', 'm', 'g', 't'])));
    let quantity = match suffix {
        "k" => format!("{number}Ki"),
        "m" => format!("{number}Mi"),
        "g" => format!("{number}Gi"),
        "t" => format!("{number}Ti"),
        _ => lower.to_owned(),
    };
    match Quantity::parse(&quantity).and_then(Quantity::value) {
        Ok(0) => Err("must be more than 0".to_owned()),
        Ok(value) => Ok(value),
        Err(Problem::Malformed) => Err("is not a size; write it as 64m, 1g, 64Mi or 1G".to_owned()),
        Err(problem) => Err(problem.to_string()),
    }
}

/// A number of CPUs, such as `0.5`, in thousandths.
pub fn cpus(text: &str) -> Result<i64, String> {
    match Quantity::parse(text).and_then(Quantity::milli) {
        Ok(0) => Err("must be at least 0.001".to_owned()),
        Ok(value) => Ok(value),
        Err(Problem::Malformed) => Err("is not a number of CPUs; write it as 2 or 0.5".to_owned()),
        Err(problem) => Err(problem.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_cpus_are_read_as_docker_does() {
        let sizes = [
            ("64m", 64 << 20),
            ("1g", 1 << 30),
            ("512k", 512 << 10),
            ("1024", 1024),
            ("10b", 10),
            ("1Gi", 1 << 30),
            ("2G", 2_000_000_000),
        ];
        for (text, wanted) in sizes {
            assert_eq!(docker_size(text), Ok(wanted), "{text}");
        }
        for bad in ["", "m", "0", "-1m", "1x", "1mm", "99999999999t"] {
            assert!(docker_size(bad).is_err(), "{bad:?}");
        }
        assert_eq!((cpus("0.5"), cpus("2"), cpus("1500m")), (Ok(500), Ok(2000), Ok(1500)));
        assert!(cpus("0").is_err() && cpus("x").is_err() && cpus("-1").is_err());
    }
}
