//! Who may connect.

use bytes::Bytes;
use bytestring::ByteString;
use twinlake_contracts::Result;

use super::rules::{AccessRule, Identity, Permissions, check};
use super::settings::BrokerOptions;
use super::token::Tokens;
use super::users::Users;

/// What a client shows.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    pub(crate) client: ByteString,
    pub(crate) username: Option<ByteString>,
    pub(crate) password: Option<Bytes>,
    /// The common name of a certificate that was verified.
    pub(crate) certificate_name: Option<String>,
}

/// Checks credentials: a client certificate, a token, a user's password, or nothing when that is allowed.
pub(crate) struct Gate {
    users: Option<Users>,
    tokens: Option<Tokens>,
    anonymous: bool,
    rules: Vec<AccessRule>,
}

impl Gate {
    /// `loopback`: the broker listens for this machine alone.
    pub(crate) fn open(options: &BrokerOptions, certificates: bool, loopback: bool) -> Result<Self> {
        check(&options.rules)?;
        let nothing_set_up = options.users.is_none() && options.token.is_none() && !certificates;
        let anonymous = options.anonymous.unwrap_or(nothing_set_up && loopback);
        if nothing_set_up && !anonymous {
            tracing::warn!(
                "the MQTT broker refuses every client: set up users, tokens or client certificates, or write anonymous = true"
            );
        }
        Ok(Self {
            users: options.users.as_deref().map(Users::open).transpose()?,
            tokens: options.token.as_ref().map(Tokens::open).transpose()?,
            anonymous,
            rules: options.rules.clone(),
        })
    }

    /// Who the client is; `None` when it may not connect.
    pub(crate) async fn admit(&self, shown: &Credentials) -> Option<Identity> {
        if let Some(name) = &shown.certificate_name {
            return Some(self.identity(Some(name.as_str().into()), &shown.client));
        }
        if let (Some(tokens), Some(password)) = (&self.tokens, &shown.password)
            && let Some(claims) = tokens.check(password)
        {
            let mut identity = self.identity(Some(claims.sub.into()), &shown.client);
            let user = identity.user.clone();
            let (publish, subscribe) = (claims.publish.as_deref(), claims.subscribe.as_deref());
            identity.permissions.narrow(publish, subscribe, user.as_deref(), &shown.client);
            return Some(identity);
        }
        if let (Some(users), Some(name), Some(password)) = (&self.users, &shown.username, &shown.password) {
            let right = users.verify(name, password).await;
            return right.then(|| self.identity(Some(name.clone()), &shown.client));
        }
        let shows_something = shown.password.is_some() && (self.users.is_some() || self.tokens.is_some());
        // A name without proof is nobody's.
        (self.anonymous && !shows_something).then(|| self.identity(None, &shown.client))
    }

    fn identity(&self, user: Option<ByteString>, client: &str) -> Identity {
        let permissions = Permissions::of(&self.rules, user.as_deref(), client);
        Identity { user, permissions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(username: Option<&'static str>, password: Option<&'static str>) -> Credentials {
        Credentials {
            client: "device".into(),
            username: username.map(ByteString::from_static),
            password: password.map(|text| Bytes::from_static(text.as_bytes())),
            certificate_name: None,
        }
    }

    #[tokio::test]
    async fn anonymous_is_for_loopback_or_by_request() {
        let open = |anonymous, loopback| {
            let options = BrokerOptions { anonymous, ..BrokerOptions::default() };
            Gate::open(&options, false, loopback).expect("gate")
        };
        for (anonymous, loopback, expected) in
            [(None, true, true), (None, false, false), (Some(true), false, true), (Some(false), true, false)]
        {
            let gate = open(anonymous, loopback);
            let found = gate.admit(&shown(None, None)).await;
            assert_eq!(found.is_some(), expected, "{anonymous:?} {loopback}");
            let found = gate.admit(&shown(Some("claimed"), Some("x"))).await;
            assert!(found.is_none_or(|identity| identity.user.is_none()), "a name without proof");
        }
    }

    #[tokio::test]
    async fn passwords_and_tokens_make_users() {
        use jsonwebtoken::{EncodingKey, Header, encode};
        let folder = tempfile::tempdir().expect("folder");
        let (users, key) = (folder.path().join("users"), folder.path().join("key"));
        let hash = super::super::users::hash_password("secret").expect("hash");
        std::fs::write(&users, format!("anna:{hash}\n")).expect("write");
        let secret = b"0123456789abcdef0123456789abcdef";
        std::fs::write(&key, secret).expect("write");
        let token = |claims: serde_json::Value| {
            encode(&Header::default(), &claims, &EncodingKey::from_secret(secret)).expect("token")
        };
        let text = "users = 'users'\ntoken = { algorithm = 'HS256', key = 'key', issuer = 'city' }\n\
                    [[rules]]\nusers = ['anna']\npublish = ['own/%u']\n";
        let path = folder.path().join("broker.toml");
        std::fs::write(&path, text).expect("write");
        let gate = Gate::open(&BrokerOptions::read(&path).expect("options"), false, true).expect("gate");
        assert!(gate.admit(&shown(None, None)).await.is_none(), "not anonymous once users are set up");
        let anna = gate.admit(&shown(Some("anna"), Some("secret"))).await.expect("anna");
        assert_eq!(anna.user.as_deref(), Some("anna"));
        assert!(anna.permissions.may_publish("own/anna") && !anna.permissions.may_publish("x"));
        assert!(gate.admit(&shown(Some("anna"), Some("wrong"))).await.is_none());

        let with_token = async |claims| {
            let password = Some(Bytes::from(token(claims)));
            gate.admit(&Credentials { password, ..shown(None, None) }).await
        };
        let later = jsonwebtoken::get_current_timestamp() + 600;
        let claims = serde_json::json!({"sub": "car", "exp": later, "iss": "city", "publish": ["car/%c/#"]});
        let car = with_token(claims).await.expect("car");
        assert_eq!(car.user.as_deref(), Some("car"));
        assert!(car.permissions.may_publish("car/device/speed") && !car.permissions.may_publish("car/x"));
        assert!(!car.permissions.may_subscribe("car/x"), "the rules hold where the token says nothing");
        for claims in [
            serde_json::json!({"sub": "car", "exp": later, "iss": "other"}),
            serde_json::json!({"sub": "car", "exp": 1000, "iss": "city"}),
            serde_json::json!({"exp": later, "iss": "city"}),
            serde_json::json!({"sub": "car", "iss": "city"}),
        ] {
            assert!(with_token(claims.clone()).await.is_none(), "{claims}");
        }
    }
}
