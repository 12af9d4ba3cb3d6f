//! Just enough of PostgreSQL's protocol to see where a transaction or a statement ends.

/// The code of a client that asks whether it may encrypt.
const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// What ended in a piece of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) commits: u64,
    pub(crate) statements: u64,
}

/// Reads what a client sends, in whatever pieces.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    rest: Vec<u8>,
    started: bool,
}

impl Requests {
    /// Takes the next piece and answers what ended in it.
    pub(crate) fn read(&mut self, piece: &[u8]) -> Seen {
        self.rest.extend_from_slice(piece);
        let mut seen = Seen::default();
        while let Some(message) = self.next() {
            match message.first() {
                Some(b'Q') if message[5..].starts_with(b"COMMIT") => seen.commits += 1,
                // Sync: the end of a statement with parameters.
                Some(b'S') => seen.statements += 1,
                _ => {}
            }
        }
        seen
    }

    /// The next whole message: a type and a length, except for those at the start of a connection.
    fn next(&mut self) -> Option<Vec<u8>> {
        let untyped = usize::from(!self.started);
        let length: [u8; 4] = self.rest.get(1 - untyped..5 - untyped)?.try_into().ok()?;
        let end = usize::try_from(u32::from_be_bytes(length)).ok()? + 1 - untyped;
        if self.rest.len() < end {
            return None;
        }
        let message: Vec<u8> = self.rest.drain(..end).collect();
        if self.started {
            return Some(message);
        }
        self.started = message.get(4..8) != Some(&SSL_REQUEST);
        // The first message has no type; an empty one stands for it.
        Some(Vec::new())
    }
}
