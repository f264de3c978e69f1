//! Accepts connections and runs each to its end.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use rmqtt_codec::v5::DisconnectReasonCode;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use twinlake_contracts::{Error, Result};

use super::connection::{Connection, End};
use super::core::Core;
use super::handshake::{handshake, send};
use super::stream::Stream;
use super::tls::common_name;

/// Binds the address.
pub(super) fn bind(wanted: SocketAddr, reuse_port: bool) -> Result<TcpListener> {
    let open = || {
        let socket = if wanted.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        #[cfg(unix)]
        socket.set_reuseport(reuse_port)?;
        socket.bind(wanted)?;
        socket.listen(4096)
    };
    if cfg!(not(unix)) && reuse_port {
        return Err(Error::config("this system cannot share a port between processes"));
    }
    open().map_err(|error| {
        Error::config(format!("the MQTT broker cannot listen on {wanted}: {error}"))
            .with_help("another program may listen there; choose another address")
    })
}

/// Counts an open socket while it lives.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Accepts for ever. `open` counts the sockets.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    core: Arc<Core>,
    open: Arc<AtomicUsize>,
) {
    let mut full = false;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of open files, most likely: those that are connected go on.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if open.load(Ordering::Acquire) >= core.limits.connections {
            if !std::mem::replace(&mut full, true) {
                tracing::warn!(limit = core.limits.connections, "no room for further MQTT connections");
            }
            continue;
        }
        full = false;
        let place = Open::new(&open);
        tokio::spawn(serve(stream, tls.clone(), Arc::clone(&core), place));
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, core: Arc<Core>, place: Open) {
    let patience = Duration::from_secs(u64::from(core.limits.connect_timeout_s));
    // In a box of its own, so that its room is free again when the connection runs.
    let arriving = Box::pin(async {
        let _ = stream.set_nodelay(true);
        let (stream, name) = match tls {
            None => (Stream::Plain(stream), None),
            Some(tls) => {
                let stream = tls.accept(stream).await.ok()?;
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let name = shown.and_then(common_name);
                (Stream::Tls(Box::new(stream), false), name)
            }
        };
        handshake(stream, Arc::clone(&core), name).await
    });
    let arrived = tokio::time::timeout(patience, arriving).await;
    let Ok(Some(connection)) = arrived else { return };
    drop(core);
    run(Box::new(connection), place).await;
}

async fn run(mut connection: Box<Connection>, place: Open) {
    connection.core.counters.connections.fetch_add(1, Ordering::AcqRel);
    if connection.core.closing.load(Ordering::Acquire) {
        connection.link.end(DisconnectReasonCode::ServerShuttingDown);
    }
    let running = AssertUnwindSafe(std::future::poll_fn(|cx| connection.poll(cx))).catch_unwind().await;
    // A defect ends its connection, and must not keep its session from the client for ever.
    let end = running.unwrap_or(End::Closed(DisconnectReasonCode::UnspecifiedError, None));
    Box::pin(finish(connection, end, place)).await;
}

/// Takes leave of the client, gives its session free, and sees what is on its way to the log to its end.
async fn finish(mut connection: Box<Connection>, end: End, place: Open) {
    connection.give_up_stalled();
    // Counted before the client can know.
    connection.settle(false);
    if let End::Closed(reason, text) = end {
        tracing::debug!(client = %connection.session.client(), ?reason, "the broker ends a connection");
        let Connection { stream, wire, out, .. } = &mut *connection;
        wire.disconnect(reason, text, out);
        send(stream, out).await;
    }
    let Connection { core, session, link, .. } = &*connection;
    let (core, session, link) = (Arc::clone(core), Arc::clone(session), Arc::clone(link));
    core.counters.connections.fetch_sub(1, Ordering::AcqRel);
    connection.shut();
    drop(place);
    let with_will = end != End::Left { with_will: false };
    // A repeat of a QoS 2 publish must find the first one recorded: the session is free when they are.
    let first_the_rest = connection.window.has_exactly_once() && session.persistent();
    if !first_the_rest {
        core.leave(&session, &link, with_will);
    }
    std::future::poll_fn(|cx| connection.poll_rest(cx)).await;
    if first_the_rest {
        core.leave(&session, &link, with_will);
    }
}
