//! What was read from one stream and is not a whole record yet.
//!
//! Owns: [`Inlet`], the buffer, which is small until the other side has proved who it is, and where the runs lie in it.
//! Never: a look into a datagram.

use std::io;

use frejus_overlay::wire::stream::{HEADER, Header, MAX};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest record of somebody who has proved nothing: a knock with every document in it is half of that.
const STRANGERS: usize = 8 << 10;
/// Read at once, at first.
const SMALL: usize = 2 << 10;
/// Read at once from a member: two of the longest records, so that a second is read while the first is incomplete.
const LARGE: usize = 2 * (HEADER + MAX);

/// A run of datagrams in the buffer: `stride` bytes each, the last maybe shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where the first begins.
    pub start: usize,
    /// Where the last ends.
    pub end: usize,
    /// Of each, in bytes.
    pub stride: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Inlet {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    runs: Vec<Run>,
}

impl Inlet {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; SMALL], start: 0, end: 0, runs: Vec::new() }
    }

    /// Waits for bytes, and finds the records that are whole now; `false` at the end of the stream. They are gone with
    /// the next call.
    ///
    /// # Errors
    /// What the stream says; `InvalidData` if it is out of step, or a stranger sends more than it may.
    pub(super) async fn read<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        is_member: bool,
    ) -> io::Result<bool> {
        self.make_room(is_member)?;
        let read = from.read(&mut self.buffer[self.end..]).await?;
        self.end += read;
        self.find()?;
        Ok(read > 0)
    }

    /// The buffer, and where whole records lie in it.
    pub(super) fn records(&mut self) -> (&mut [u8], &[Run]) {
        (&mut self.buffer, &self.runs)
    }

    fn find(&mut self) -> io::Result<()> {
        self.runs.clear();
        while let Some(header) = self.header()?
            && self.end - self.start >= HEADER + header.length()
        {
            let start = self.start + HEADER;
            let end = start + header.length();
            self.runs.push(Run { start, end, stride: header.stride() });
            self.start = end;
        }
        Ok(())
    }

    fn header(&self) -> io::Result<Option<Header>> {
        let Some(bytes) = self.buffer[self.start..self.end].first_chunk() else { return Ok(None) };
        let header = Header::decode(*bytes).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some(header))
    }

    /// Room for the record that has begun, and for more if the other side is a member.
    fn make_room(&mut self, is_member: bool) -> io::Result<()> {
        let needed = HEADER + self.header()?.map_or(0, Header::length);
        if !is_member && needed > HEADER + STRANGERS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let full = self.end == self.buffer.len();
        let wanted = if is_member && (full || needed > self.buffer.len()) { LARGE } else { needed };
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: &[u8], stride: usize) -> Vec<u8> {
        [&Header::new(bytes.len(), stride).unwrap().encode()[..], bytes].concat()
    }

    /// What comes out of `bytes`, read in portions of `portion`.
    async fn read(bytes: &[u8], portion: usize, is_member: bool) -> io::Result<Vec<(Vec<u8>, usize)>> {
        let (mut inlet, mut found) = (Inlet::new(), Vec::new());
        for portion in bytes.chunks(portion) {
            let mut from = portion;
            while !from.is_empty() {
                inlet.read(&mut from, is_member).await?;
                let (buffer, runs) = inlet.records();
                found.extend(runs.iter().map(|run| (buffer[run.start..run.end].to_vec(), run.stride)));
            }
        }
        Ok(found)
    }

    #[tokio::test]
    async fn records_come_in_pieces_and_together() {
        let long: Vec<u8> = (0..60_000_u32).map(|n| n as u8).collect();
        let runs = [(vec![7; 148], 148), (long, 1312), (vec![9; 32], 32), (vec![1; 65_535], 1400)];
        let bytes: Vec<u8> = runs.iter().flat_map(|(bytes, stride)| record(bytes, *stride)).collect();
        for portion in [1, 3, 1000, 70_000, bytes.len()] {
            assert_eq!(read(&bytes, portion, true).await.unwrap(), runs, "in portions of {portion}");
        }
    }

    #[tokio::test]
    async fn a_stranger_gets_no_room() {
        assert_eq!(read(&record(&[0; STRANGERS], 8192), 100, false).await.unwrap().len(), 1);
        let greedy = read(&record(&[0; STRANGERS + 1], 8193), 100, false).await.unwrap_err();
        assert_eq!(greedy.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_stream_out_of_step_ends() {
        let mut bytes = record(b"fine", 4);
        bytes.extend(b"\x00\x00\x00\x00");
        assert_eq!(read(&bytes, 100, true).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
