//! A connection's bytes, plain or through TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection of either kind.
pub(crate) enum Stream {
    Plain(TcpStream),
    /// And whether something is still to be flushed.
    Tls(Box<TlsStream<TcpStream>>, bool),
    /// It was closed.
    Shut,
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Self::Shut => Poll::Ready(Ok(())),
        }
    }
}

impl Stream {
    /// Whether bytes that left the buffer are still on their way out.
    pub(crate) fn unsent(&self) -> bool {
        matches!(self, Self::Tls(_, true))
    }

    /// Writes from the front of `out` until it is empty and everything is on its way.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, out: &mut BytesMut) -> Poll<io::Result<()>> {
        while !out.is_empty() {
            let written = match self {
                Self::Plain(stream) => Pin::new(stream).poll_write(cx, out),
                Self::Tls(stream, unsent) => {
                    *unsent = true;
                    Pin::new(stream).poll_write(cx, out)
                }
                Self::Shut => Poll::Ready(Ok(0)),
            };
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => out.advance(count),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        // An idle connection keeps no buffer.
        *out = BytesMut::new();
        match self {
            Self::Plain(_) | Self::Shut => Poll::Ready(Ok(())),
            Self::Tls(stream, unsent) => {
                let flushed = Pin::new(stream).poll_flush(cx);
                *unsent = flushed.is_pending();
                flushed
            }
        }
    }
}
