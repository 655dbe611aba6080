//! Names of watched descriptors in the event loop.
//!
//! Owns: their coding into 64 bits. Must not: hold descriptors. Serial numbers are never used twice, so an event that is late
//! finds nothing instead of something else.

/// What of a task an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Init ended.
    Init,
    /// The main process ended.
    Child,
    /// Init says something.
    Channel,
    /// Output came, of this stream (0 or 1).
    Output(usize),
    /// The cgroup's memory events changed.
    Oom,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// A new connection.
    Listener,
    /// Some child ended.
    ChildSignal,
    /// A connection.
    Connection(u32),
    /// A task.
    Task(u32, Part),
}

impl Token {
    /// As a number.
    pub fn encode(self) -> u64 {
        let (kind, serial) = match self {
            Self::Listener => (0, 0),
            Self::ChildSignal => (1, 0),
            Self::Connection(serial) => (2, serial),
            Self::Task(serial, Part::Init) => (3, serial),
            Self::Task(serial, Part::Child) => (4, serial),
            Self::Task(serial, Part::Channel) => (5, serial),
            Self::Task(serial, Part::Oom) => (6, serial),
            Self::Task(serial, Part::Output(0)) => (7, serial),
            Self::Task(serial, Part::Output(_)) => (8, serial),
        };
        u64::from(serial) << 32 | kind
    }

    /// From a number that [`Token::encode`] gave.
    pub fn decode(number: u64) -> Option<Self> {
        let serial = u32::try_from(number >> 32).ok()?;
        let task = |part| Some(Self::Task(serial, part));
        match number & 0xffff_ffff {
            0 => Some(Self::Listener),
            1 => Some(Self::ChildSignal),
            2 => Some(Self::Connection(serial)),
            3 => task(Part::Init),
            4 => task(Part::Child),
            5 => task(Part::Channel),
            6 => task(Part::Oom),
            7 => task(Part::Output(0)),
            8 => task(Part::Output(1)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        let parts = [Part::Init, Part::Child, Part::Channel, Part::Oom, Part::Output(0), Part::Output(1)];
        let tasks = parts.map(|part| Token::Task(u32::MAX, part));
        for token in [Token::Listener, Token::ChildSignal, Token::Connection(7)].into_iter().chain(tasks) {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(99), None);
    }
}
