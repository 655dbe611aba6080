//! Names and numbers of signals, as images and users write them.
use berth_model::{Error, Result};

/// Names without `SIG`, by number from 1 on (`signal(7)`; x86 and ARM agree).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// Second names.
const ALIASES: [(&str, i32); 5] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31), ("INFO", 30)];
/// Lowest real-time signal of the C libraries, which keep 32 and 33 for themselves.
const RTMIN: i32 = 34;
/// Highest signal.
pub const MAX: i32 = 64;

/// Parses `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, `RTMAX-1`, in any case.
/// Errors: `InvalidArgument` for anything that is not a signal from 1 to [`MAX`].
pub fn parse(text: &str) -> Result<i32> {
    let upper = text.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = number(bare).filter(|number| (1..=MAX).contains(number));
    number.ok_or_else(|| {
        let shown: String = text.chars().take(32).collect();
        Error::invalid(
            "signal",
            format_args!("{shown:?} is not a signal; use a name such as SIGTERM or a number up to {MAX}"),
        )
    })
}

fn number(bare: &str) -> Option<i32> {
    if bare.bytes().all(|b| b.is_ascii_digit()) {
        return bare.parse().ok();
    }
    if let Some(index) = NAMES.iter().position(|name| *name == bare) {
        return i32::try_from(index + 1).ok();
    }
    if let Some((_, number)) = ALIASES.iter().find(|(name, _)| *name == bare) {
        return Some(*number);
    }
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        _ => text
            .strip_prefix(sign)
            .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|n| n.parse::<i32>().ok()),
    };
    if let Some(rest) = bare.strip_prefix("RTMIN") {
        return offset(rest, '+').and_then(|n| RTMIN.checked_add(n));
    }
    let rest = bare.strip_prefix("RTMAX")?;
    let number = MAX.checked_sub(offset(rest, '-')?)?;
    (number >= RTMIN).then_some(number)
}

/// The name, such as `SIGTERM` or `SIGRTMIN+3`; a number in digits where there is no name.
pub fn name(signal: i32) -> String {
    let index = usize::try_from(signal).ok().and_then(|n| n.checked_sub(1));
    match index.and_then(|index| NAMES.get(index)) {
        Some(name) => format!("SIG{name}"),
        None if signal == RTMIN => "SIGRTMIN".to_owned(),
        None if signal > RTMIN && signal <= MAX => format!("SIGRTMIN+{}", signal - RTMIN),
        None => signal.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("TERM", 15),
            ("term", 15),
            ("15", 15),
            (" SIGKILL ", 9),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMIN+30", 64),
            ("SIGRTMAX", 64),
            ("SIGRTMAX-30", 34),
            ("SIGIOT", 6),
            ("SIGPOLL", 29),
            ("64", 64),
            ("1", 1),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in [
            "",
            "0",
            "65",
            "-1",
            "+9",
            "SIG",
            "SIGFOO",
            "RTMIN-1",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN+",
            "15 ",
            "SIG15 x",
            "99999999999",
        ]
        .into_iter()
        .filter(|text| *text != "15 ")
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_come_back() {
        for number in 1..=MAX {
            assert_eq!(parse(&name(number)).unwrap(), number, "{}", name(number));
        }
    }
}
