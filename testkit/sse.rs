//! A reader of server-sent events.

use anyhow::Result;
use reqwest::Response;

/// A frame of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// The position that its client has seen with it.
    pub id: Option<u8>,
    /// Its kind.
    pub event: String,
    /// What it says.
    pub data: String,
}

/// An open stream.
pub struct EventStream {
    response: Response,
    text: Vec<u8>,
}

impl EventStream {
    /// Reads a stream that was answered.
    pub fn of(response: Response) -> Self {
        Self { response, text: Vec::new() }
    }

    /// The next frame that says something; none when the stream is over.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            while let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.text.drain(..end + 2).collect();
                let frame = parse(std::str::from_utf8(&frame)?)?;
                if !frame.event.is_empty() && frame.event != "beat" {
                    return Ok(Some(frame));
                }
            }
            let Some(bytes) = self.response.chunk().await? else { return Ok(None) };
            self.text.extend_from_slice(&bytes);
        }
    }
}

fn parse(text: &str) -> Result<Frame> {
    let mut frame = Frame::default();
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => frame.id = Some(value.parse()?),
            "event" => value.clone_into(&mut frame.event),
            "data" => value.clone_into(&mut frame.data),
            _ => {}
        }
    }
    Ok(frame)
}
