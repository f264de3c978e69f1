//! One MQTT connection as the `mqtt` source needs it, the same for protocol 3.1.1 and 5.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rumqttc::tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use rumqttc::{TlsConfiguration, Transport, v5};
use twinlake_contracts::{Error, Result};

use crate::received_at::RECEIVED_AT_PROPERTY;

/// What a connection is made with; checked before.
#[derive(Debug, Clone)]
pub(crate) struct LinkSettings {
    pub(crate) version_5: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) client_id: String,
    /// Whether the broker keeps the session while this client is away.
    pub(crate) persistent: bool,
    pub(crate) session_expiry_s: u32,
    pub(crate) credentials: Option<(String, String)>,
    pub(crate) keep_alive_s: u16,
    pub(crate) inflight: u16,
    pub(crate) max_packet_bytes: u32,
}

/// Certificate files of a TLS connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsFiles {
    pub(crate) authority: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// A publish that arrived and waits for its acknowledgement.
#[derive(Debug, Clone)]
pub(crate) enum Receipt {
    V4(rumqttc::Publish),
    V5(v5::mqttbytes::v5::Publish),
}

/// A publish that arrived.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) received_at: Option<String>,
    /// `None` for QoS 0.
    pub(crate) receipt: Option<Receipt>,
}

/// What happened on the connection.
#[derive(Debug)]
pub(crate) enum Event {
    Connected {
        session_present: bool,
    },
    Arrived(Box<Arrival>),
    /// The broker refused a subscription.
    SubscriptionRefused(String),
    Disconnecting,
    Other,
}

/// Why a connection failed.
#[derive(Debug)]
pub(crate) struct LinkError {
    pub(crate) text: String,
    /// Trying again cannot help: wrong credentials, not authorized, a protocol version that the broker lacks, a
    /// certificate that is not trusted.
    pub(crate) permanent: bool,
}

pub(crate) enum Link {
    V4(Box<rumqttc::EventLoop>),
    V5(Box<v5::EventLoop>),
}

/// Sends subscriptions and acknowledgements to the connection; never waits.
#[derive(Clone)]
pub(crate) enum Sender {
    V4(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// Room for requests: all packet identifiers that a broker can leave unacknowledged, so that a request never waits
/// for the connection.
const REQUESTS: usize = 70_000;

impl Link {
    pub(crate) fn new(settings: &LinkSettings) -> Result<(Sender, Self)> {
        let transport = match &settings.tls {
            None => Transport::Tcp,
            Some(files) => Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls_client(files)?))),
        };
        let keep_alive = Duration::from_secs(u64::from(settings.keep_alive_s));
        let (id, host, port) = (settings.client_id.clone(), settings.host.clone(), settings.port);
        if settings.version_5 {
            let mut options = v5::MqttOptions::new(id, host, port);
            options
                .set_transport(transport)
                .set_keep_alive(keep_alive)
                .set_clean_start(!settings.persistent)
                .set_session_expiry_interval(Some(settings.session_expiry_s))
                .set_receive_maximum(Some(settings.inflight))
                .set_max_packet_size(Some(settings.max_packet_bytes))
                .set_connection_timeout(10)
                // Nothing is published here; the default reserves room for 65,535 messages.
                .set_outgoing_inflight_upper_limit(1)
                .set_manual_acks(true);
            if let Some((name, password)) = &settings.credentials {
                options.set_credentials(name.clone(), password.clone());
            }
            let (client, events) = v5::AsyncClient::new(options, REQUESTS);
            Ok((Sender::V5(client), Self::V5(Box::new(events))))
        } else {
            let mut options = rumqttc::MqttOptions::new(id, host, port);
            let bytes = settings.max_packet_bytes as usize;
            options
                .set_transport(transport)
                .set_keep_alive(keep_alive)
                .set_clean_session(!settings.persistent)
                .set_max_packet_size(bytes, bytes)
                .set_manual_acks(true);
            if let Some((name, password)) = &settings.credentials {
                options.set_credentials(name.clone(), password.clone());
            }
            let (client, mut events) = rumqttc::AsyncClient::new(options, REQUESTS);
            let mut network = events.network_options();
            network.set_connection_timeout(10);
            events.set_network_options(network);
            Ok((Sender::V4(client), Self::V4(Box::new(events))))
        }
    }

    /// The next event; connects when there is no connection.
    pub(crate) async fn next(&mut self) -> Result<Event, LinkError> {
        match self {
            Self::V4(events) => events.poll().await.map(event_v4).map_err(|error| error_v4(&error)),
            Self::V5(events) => {
                let event = events.poll().await.map(event_v5).map_err(|error| error_v5(&error));
                if let Ok(Event::Connected { .. }) = &event {
                    // From now on the session of this process goes on after a lost connection.
                    events.options.set_clean_start(false);
                }
                event
            }
        }
    }

    /// Drops the connection and every acknowledgement that was not sent: the broker will deliver those again.
    pub(crate) fn clean(&mut self) {
        match self {
            Self::V4(events) => events.clean(),
            Self::V5(events) => events.clean(),
        }
    }
}

impl Sender {
    pub(crate) fn subscribe(&self, topics: &[String], qos: u8) -> Result<()> {
        let full = |error: String| Error::internal(format!("cannot queue the subscription: {error}"));
        match self {
            Self::V4(client) => {
                let qos = if qos == 0 { rumqttc::QoS::AtMostOnce } else { rumqttc::QoS::AtLeastOnce };
                let filters = topics.iter().map(|topic| rumqttc::SubscribeFilter::new(topic.clone(), qos));
                client.try_subscribe_many(filters).map_err(|error| full(error.to_string()))
            }
            Self::V5(client) => {
                use v5::mqttbytes::QoS;
                use v5::mqttbytes::v5::{Filter, RetainForwardRule};
                let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                let filters = topics.iter().map(|topic| {
                    let mut filter = Filter::new(topic.clone(), qos);
                    // A subscription that the session still has must not bring its retained messages again.
                    filter.retain_forward_rule = RetainForwardRule::OnNewSubscribe;
                    filter
                });
                client.try_subscribe_many(filters).map_err(|error| full(error.to_string()))
            }
        }
    }

    pub(crate) fn acknowledge(&self, receipt: &Receipt) -> Result<()> {
        let outcome = match (self, receipt) {
            (Self::V4(client), Receipt::V4(publish)) => client.try_ack(publish).map_err(|e| e.to_string()),
            (Self::V5(client), Receipt::V5(publish)) => client.try_ack(publish).map_err(|e| e.to_string()),
            _ => Err("the receipt is of another protocol".to_owned()),
        };
        outcome.map_err(|error| Error::internal(format!("cannot queue an acknowledgement: {error}")))
    }

    pub(crate) fn disconnect(&self) {
        // When the queue is closed the connection has gone already.
        match self {
            Self::V4(client) => drop(client.try_disconnect()),
            Self::V5(client) => drop(client.try_disconnect()),
        }
    }
}

fn event_v4(event: rumqttc::Event) -> Event {
    use rumqttc::{Outgoing, Packet, QoS, SubscribeReasonCode};
    match event {
        rumqttc::Event::Incoming(Packet::ConnAck(ack)) => {
            Event::Connected { session_present: ack.session_present }
        }
        rumqttc::Event::Incoming(Packet::Publish(mut publish)) => Event::Arrived(Box::new(Arrival {
            payload: std::mem::take(&mut publish.payload),
            topic: publish.topic.clone(),
            received_at: None,
            receipt: (publish.qos != QoS::AtMostOnce).then(|| Receipt::V4(publish)),
        })),
        rumqttc::Event::Incoming(Packet::SubAck(ack))
            if ack.return_codes.contains(&SubscribeReasonCode::Failure) =>
        {
            Event::SubscriptionRefused("the broker refused it".to_owned())
        }
        rumqttc::Event::Outgoing(Outgoing::Disconnect) => Event::Disconnecting,
        _ => Event::Other,
    }
}

fn event_v5(event: v5::Event) -> Event {
    use v5::mqttbytes::QoS;
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    match event {
        v5::Event::Incoming(Packet::ConnAck(ack)) => {
            Event::Connected { session_present: ack.session_present }
        }
        v5::Event::Incoming(Packet::Publish(mut publish)) => {
            let properties = publish.properties.take();
            Event::Arrived(Box::new(Arrival {
                payload: std::mem::take(&mut publish.payload),
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                received_at: properties.and_then(|properties| {
                    let mut found = properties.user_properties.into_iter();
                    found.find(|(name, _)| name == RECEIVED_AT_PROPERTY).map(|(_, value)| value)
                }),
                receipt: (publish.qos != QoS::AtMostOnce).then(|| Receipt::V5(publish)),
            }))
        }
        v5::Event::Incoming(Packet::SubAck(ack)) => {
            let refused =
                ack.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
            refused.map_or(Event::Other, |code| Event::SubscriptionRefused(format!("{code:?}")))
        }
        v5::Event::Outgoing(rumqttc::Outgoing::Disconnect) => Event::Disconnecting,
        _ => Event::Other,
    }
}

fn error_v4(error: &rumqttc::ConnectionError) -> LinkError {
    use rumqttc::ConnectReturnCode as Code;
    let permanent = matches!(
        error,
        rumqttc::ConnectionError::ConnectionRefused(
            Code::BadUserNamePassword
                | Code::NotAuthorized
                | Code::BadClientId
                | Code::RefusedProtocolVersion
        ) | rumqttc::ConnectionError::RequestsDone
    );
    link_error(error.to_string(), permanent)
}

fn error_v5(error: &v5::ConnectionError) -> LinkError {
    use v5::mqttbytes::v5::ConnectReturnCode as Code;
    let permanent = matches!(
        error,
        v5::ConnectionError::ConnectionRefused(
            Code::BadUserNamePassword
                | Code::NotAuthorized
                | Code::BadClientId
                | Code::ClientIdentifierNotValid
                | Code::RefusedProtocolVersion
                | Code::UnsupportedProtocolVersion
                | Code::Banned
                | Code::BadAuthenticationMethod
        ) | v5::ConnectionError::RequestsDone
    );
    link_error(error.to_string(), permanent)
}

fn link_error(text: String, permanent: bool) -> LinkError {
    // rustls wraps this error in an I/O error; its text is what is left of its kind.
    let untrusted = text.contains("invalid peer certificate");
    LinkError { permanent: permanent || untrusted, text }
}

/// The TLS side of a client: the authority of the settings, or else the roots of the system.
fn tls_client(files: &TlsFiles) -> Result<ClientConfig> {
    let unreadable = |path: &Path, error: &dyn std::fmt::Display| {
        Error::config(format!("'{}' cannot be used for TLS: {error}", path.display()))
            .with_help("a PEM file is expected")
    };
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>> {
        let found = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unreadable(path, &error))?;
        if found.is_empty() { Err(unreadable(path, &"it holds no certificate")) } else { Ok(found) }
    };
    let mut roots = RootCertStore::empty();
    if let Some(path) = &files.authority {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| unreadable(path, &error))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(Error::config(
                "this system has no root certificates to check the broker's certificate with",
            )
            .with_help("install them (Debian: ca-certificates) or name the authority's file as 'ca'"));
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?
        .with_root_certificates(roots);
    match (&files.certificate, &files.key) {
        (Some(certificate), Some(key_path)) => {
            let key = PrivateKeyDer::from_pem_file(key_path).map_err(|error| unreadable(key_path, &error))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, key)
                .map_err(|error| unreadable(certificate, &error))
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}
