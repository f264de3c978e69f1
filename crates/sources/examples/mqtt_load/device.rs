//! One device: a socket, what is to be sent, and when each unacknowledged message was due.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::histogram::Histogram;

pub struct Device {
    pub stream: TcpStream,
    topic: String,
    out: Vec<u8>,
    tail: Vec<u8>,
    packet: u16,
    /// When the messages in flight were due, in microseconds, oldest first: a broker acknowledges in order.
    flying: VecDeque<u64>,
    /// When the messages that wait for room in the window were due.
    waiting: VecDeque<u64>,
    pub connected: bool,
    /// Whether a ping has been answered.
    pub answered: bool,
}

impl Device {
    /// Connects from the first port from `port` on that is free, and says which one comes after it: a system that is
    /// asked for any port gives only half of them quickly.
    pub fn connect(to: SocketAddr, from: IpAddr, port: &mut u16, name: &str) -> std::io::Result<Self> {
        let keep_alive_s = 600_u16;
        let socket = loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            let bound = socket.bind(&SocketAddr::new(from, *port).into());
            *port += 1;
            match bound.and_then(|()| socket.connect(&to.into())) {
                Ok(()) => break socket,
                Err(error) if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable) => {}
                Err(error) => return Err(error),
            }
        };
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        let mut out = vec![0x10, (12 + name.len()) as u8, 0, 4, b'M', b'Q', b'T', b'T', 4, 2];
        out.extend_from_slice(&keep_alive_s.to_be_bytes());
        out.extend_from_slice(&(name.len() as u16).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
        Ok(Self {
            stream: TcpStream::from_std(socket.into()),
            topic: format!("load/{name}"),
            out,
            tail: Vec::new(),
            packet: 0,
            flying: VecDeque::new(),
            waiting: VecDeque::new(),
            connected: false,
            answered: false,
        })
    }

    /// A message is due; it is sent when the window has room.
    pub fn due(&mut self, at_us: u64, window: usize, payload: &[u8]) {
        self.waiting.push_back(at_us);
        self.fill(window, payload);
    }

    fn fill(&mut self, window: usize, payload: &[u8]) {
        while self.flying.len() < window
            && let Some(at_us) = self.waiting.pop_front()
        {
            self.flying.push_back(at_us);
            self.packet = self.packet.checked_add(1).unwrap_or(1);
            let mut length = 2 + self.topic.len() + 2 + payload.len();
            self.out.push(0x32);
            while length > 127 {
                self.out.push((length % 128) as u8 | 0x80);
                length /= 128;
            }
            self.out.push(length as u8);
            self.out.extend_from_slice(&(self.topic.len() as u16).to_be_bytes());
            self.out.extend_from_slice(self.topic.as_bytes());
            self.out.extend_from_slice(&self.packet.to_be_bytes());
            self.out.extend_from_slice(payload);
        }
    }

    pub fn ping(&mut self) {
        self.out.extend_from_slice(&[0xC0, 0]);
    }

    pub fn flush(&mut self) -> std::io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.out = Vec::new();
        Ok(())
    }

    /// Takes what came in. `now_us` is the time of all of it.
    pub fn read(
        &mut self,
        now_us: u64,
        room: &mut [u8],
        window: usize,
        payload: &[u8],
        latencies: &mut Histogram,
    ) -> std::io::Result<()> {
        loop {
            let count = match self.stream.read(room) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            self.tail.extend_from_slice(&room[..count]);
            let mut at = 0;
            while self.tail.len() >= at + 2 {
                let end = at + 2 + usize::from(self.tail[at + 1]);
                if self.tail.len() < end {
                    break;
                }
                match self.tail[at] >> 4 {
                    2 => {
                        assert_eq!(self.tail[at + 3], 0, "the broker refused the connection");
                        self.connected = true;
                    }
                    4 => {
                        let sent = self.flying.pop_front().expect("an acknowledgement of nothing");
                        let expected = self.packet.wrapping_sub(self.flying.len() as u16);
                        let found = u16::from_be_bytes([self.tail[at + 2], self.tail[at + 3]]);
                        // Identifiers go round without zero, so the two differ by one after a lap.
                        assert!(found.abs_diff(expected) <= 1 || found > 60_000, "{found}, not {expected}");
                        latencies.record(now_us.saturating_sub(sent));
                    }
                    13 => self.answered = true,
                    _ => {}
                }
                at = end;
            }
            self.tail.drain(..at);
            if self.tail.is_empty() {
                self.tail = Vec::new();
            }
            if count < room.len() {
                break;
            }
        }
        self.fill(window, payload);
        Ok(())
    }
}
