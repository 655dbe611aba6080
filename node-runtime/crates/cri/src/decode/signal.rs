//! The CRI's Signal enumeration counts by name; Linux counts by number (signal(7), x86 and arm).
use super::enumeration;
use berth_model::Result;
use berth_proto::cri::Signal;

/// Linux numbers of the named values 1 to 34, in the enumeration's order.
const NAMED: [i32; 34] = [
    6, 14, 7, 17, 17, 18, 8, 1, 4, 2, 29, 6, 9, 13, 29, 27, 30, 3, 11, 16, 19, 31, 15, 5, 20, 21, 22, 23, 10, 12, 26,
    28, 24, 25,
];
const FIRST_REALTIME: i32 = Signal::Sigrtmin as i32;
/// SIGRTMIN as libc has it.
const SIGRTMIN: i32 = 34;

/// The Linux number; `None` for "the runtime's default".
pub(crate) fn signal_number(field: &str, value: i32) -> Result<Option<i32>> {
    let signal: Signal = enumeration(field, value)?;
    let value = signal as i32;
    Ok(match value {
        0 => None,
        v if v < FIRST_REALTIME => usize::try_from(v - 1).ok().and_then(|i| NAMED.get(i)).copied(),
        // SIGRTMIN..SIGRTMIN+15, then SIGRTMAX-14..SIGRTMAX: 34 to 64 without a gap.
        v => Some(SIGRTMIN + v - FIRST_REALTIME),
    })
}

/// The enumeration's value of a Linux number; the first of several names.
pub(crate) fn signal_value(number: i32) -> i32 {
    if number >= SIGRTMIN {
        return FIRST_REALTIME + number - SIGRTMIN;
    }
    NAMED.iter().position(|n| *n == number).and_then(|i| i32::try_from(i + 1).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_linux() {
        let known = [
            (Signal::Sigterm, 15),
            (Signal::Sigkill, 9),
            (Signal::Sighup, 1),
            (Signal::Sigquit, 3),
            (Signal::Sigusr1, 10),
            (Signal::Sigwinch, 28),
            (Signal::Sigxfsz, 25),
            (Signal::Sigrtmin, 34),
            (Signal::Sigrtminplus15, 49),
            (Signal::Sigrtmaxminus14, 50),
            (Signal::Sigrtmax, 64),
        ];
        for (signal, number) in known {
            assert_eq!(signal_number("s", signal as i32).unwrap(), Some(number), "{signal:?}");
            assert_eq!(signal_number("s", signal_value(number)).unwrap(), Some(number), "{signal:?} back");
        }
        assert_eq!(signal_number("s", 0).unwrap(), None);
        assert!(signal_number("s", 66).is_err());
    }
}
