//! The head of a request, as HPACK (RFC 7541) writes it: worked out once, because all requests of a client begin alike.
//!
//! The first request of a connection puts its fields into the peer's table (section 6.2.1); all later ones only name
//! those entries, a byte or two for each field. A peer that wants a table smaller than the one that everybody has at
//! first (`SETTINGS_HEADER_TABLE_SIZE`) is told that we use none of it (section 6.3) and gets every field in full
//! (section 6.2.2). What differs from request to request, the size of the answer, comes last and in full. Huffman coding is not used: it is the peer's time that it would take, for a few bytes of one request.

use bytes::{BufMut, BytesMut};
use h2::frame::{DEFAULT_MAX_FRAME_SIZE, DEFAULT_SETTINGS_HEADER_TABLE_SIZE, Head, Kind, StreamId};
use http::{Method, Request};

use crate::load::RESPONSE_SIZE_HEADER;

/// Entries of the static table (appendix A).
const STATIC: usize = 61;
/// What an entry takes besides its name and value (section 4.1).
const ENTRY: usize = 32;
/// Fields that the static table holds whole, and their indices.
const WHOLE: [(&str, &str, usize); 4] = [
    (":method", "GET", 2),
    (":method", "POST", 3),
    (":path", "/", 4),
    (":scheme", "http", 6),
];
/// Frames are not longer than every peer takes.
const LARGEST: usize = DEFAULT_MAX_FRAME_SIZE as usize;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// What every request of a client begins with.
pub(in super::super) struct Template {
    first: Vec<u8>,
    later: Vec<u8>,
    plain: Vec<u8>,
    /// Whether answers have no body, whatever length they tell (RFC 9110, section 9.3.2).
    pub(super) is_head: bool,
}

/// What one connection's peer knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Empty,
    Filled,
    /// Its table is too small, which it is yet to be told.
    Refused,
    /// The same, and it was told.
    Unused,
}

/// How a field is written.
#[derive(Clone, Copy)]
enum Place {
    /// As this entry of a table.
    Entry(usize),
    /// In full, to become an entry.
    New,
    /// In full.
    Nowhere,
}

// === impl Template ===

impl Template {
    pub(in super::super) fn new(request: &Request<()>) -> Self {
        let uri = request.uri();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        // The form of OPTIONS that asks for the whole server, `*`, is of no use here.
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let method: &Method = request.method();
        let mut fields: Vec<(&str, &[u8])> = vec![
            (":method", method.as_str().as_bytes()),
            (":scheme", uri.scheme_str().unwrap_or("http").as_bytes()),
            (":authority", authority.as_bytes()),
            (":path", path.as_bytes()),
        ];
        let headers = request.headers().iter();
        fields.extend(headers.map(|(name, value)| (name.as_str(), value.as_bytes())));
        let mut room = DEFAULT_SETTINGS_HEADER_TABLE_SIZE;
        let places: Vec<Place> = fields
            .iter()
            .map(|(name, value)| place(name, value, &mut room))
            .collect();
        let new = |place: &&Place| matches!(place, Place::New);
        // The youngest entry comes first (section 2.3.3).
        let mut youngest = STATIC + places.iter().filter(new).count();
        let mut block = Self {
            first: Vec::new(),
            later: Vec::new(),
            plain: Vec::new(),
            is_head: method == Method::HEAD,
        };
        for ((name, value), place) in fields.iter().zip(places) {
            let (in_later, in_plain) = match place {
                Place::New => {
                    youngest -= 1;
                    (Place::Entry(youngest + 1), Place::Nowhere)
                }
                other => (other, other),
            };
            field(&mut block.first, name, value, place);
            field(&mut block.later, name, value, in_later);
            field(&mut block.plain, name, value, in_plain);
        }
        block
    }

    /// Writes a request whose stream ends with its head if `end`, and which asks for an answer of a size.
    pub(super) fn write(
        &self,
        to: &mut BytesMut,
        table: &mut Table,
        id: StreamId,
        end: bool,
        asked: Option<u64>,
    ) {
        let (block, after) = match *table {
            Table::Empty => (&self.first, Table::Filled),
            Table::Filled => (&self.later, Table::Filled),
            Table::Refused | Table::Unused => (&self.plain, Table::Unused),
        };
        // "The dynamic table has 0 bytes from now on."
        let size_update: &[u8] = if *table == Table::Refused {
            &[0x20]
        } else {
            &[]
        };
        *table = after;
        let mut with_size = Vec::new();
        let block = match asked {
            None => block,
            Some(size) => {
                with_size.extend_from_slice(block);
                let size = size.to_string();
                field(
                    &mut with_size,
                    RESPONSE_SIZE_HEADER,
                    size.as_bytes(),
                    Place::Nowhere,
                );
                &with_size
            }
        };
        let split = block.len().min(LARGEST - size_update.len());
        let (block, mut rest) = block.split_at(split);
        let flag = |last: bool| if last { END_HEADERS } else { 0 };
        let flags = flag(rest.is_empty()) | if end { END_STREAM } else { 0 };
        let head = Head::new(Kind::Headers, flags, id);
        head.encode(size_update.len() + block.len(), to);
        to.extend_from_slice(size_update);
        to.extend_from_slice(block);
        while !rest.is_empty() {
            let (block, after) = rest.split_at(rest.len().min(LARGEST));
            rest = after;
            let head = Head::new(Kind::Continuation, flag(rest.is_empty()), id);
            head.encode(block.len(), to);
            to.extend_from_slice(block);
        }
    }
}

// === impl Table ===

impl Table {
    /// The peer wants it to be so large.
    pub(super) fn resize(&mut self, size: u32) {
        let enough = size as usize >= DEFAULT_SETTINGS_HEADER_TABLE_SIZE;
        *self = match *self {
            Self::Empty | Self::Filled if !enough => Self::Refused,
            as_before => as_before,
        };
    }
}

/// Where a field finds its place when the dynamic table has `room` left.
fn place(name: &str, value: &[u8], room: &mut usize) -> Place {
    let whole = WHOLE
        .iter()
        .find(|known| known.0 == name && known.1.as_bytes() == value);
    if let Some((_, _, index)) = whole {
        return Place::Entry(*index);
    }
    match room.checked_sub(ENTRY + name.len() + value.len()) {
        Some(left) => {
            *room = left;
            Place::New
        }
        None => Place::Nowhere,
    }
}

/// Writes one field (section 6).
fn field(to: &mut Vec<u8>, name: &str, value: &[u8], place: Place) {
    match place {
        Place::Entry(index) => return integer(to, 0x80, 7, index),
        Place::New => to.put_u8(0x40),
        Place::Nowhere => to.put_u8(0),
    }
    for text in [name.as_bytes(), value] {
        integer(to, 0, 7, text.len());
        to.extend_from_slice(text);
    }
}

/// Writes an integer behind the upper bits of `first` (section 5.1).
fn integer(to: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let most = (1_usize << prefix) - 1;
    let low = |value: usize| u8::try_from(value & 0xff).unwrap_or(u8::MAX);
    if value < most {
        return to.put_u8(first | low(value));
    }
    to.put_u8(first | low(most));
    let mut rest = value - most;
    while rest >= 0x80 {
        to.put_u8(0x80 | low(rest & 0x7f));
        rest >>= 7;
    }
    to.put_u8(low(rest));
}
