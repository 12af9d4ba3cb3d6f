//! Just enough of PostgreSQL's protocol to see where a transaction or a statement ends.

/// The code of a client that asks whether it may encrypt.
const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// Reads what a client sends, in whatever pieces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Commits {
    /// Commits in the last piece.
    pub(crate) commits: u64,
    /// Statements in the last piece.
    pub(crate) statements: u64,
    rest: Vec<u8>,
    started: bool,
}

impl Commits {
    /// Takes the next piece and answers what ended in it.
    pub(crate) fn read(&mut self, piece: &[u8]) -> Self {
        self.rest.extend_from_slice(piece);
        (self.commits, self.statements) = (0, 0);
        while let Some(message) = self.next() {
            match message.first() {
                Some(b'Q') if message[5..].starts_with(b"COMMIT") => self.commits += 1,
                Some(b'S') => self.statements += 1,
                _ => {}
            }
        }
        Self { commits: self.commits, statements: self.statements, ..Self::default() }
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
