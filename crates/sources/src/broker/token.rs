//! Tokens (JWT, RFC 7519) in place of a password.

use std::path::PathBuf;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use twinlake_contracts::{Error, Result};

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TokenAlgorithm {
    /// HMAC with SHA-256; the key file holds the shared secret.
    #[serde(rename = "HS256")]
    Hs256,
    /// RSA with SHA-256; the key file holds the public key, PEM.
    #[serde(rename = "RS256")]
    Rs256,
}

/// How tokens are checked. A token stands in the password field of CONNECT; it must carry `sub` (the user name) and
/// `exp`, and may carry `publish` and `subscribe`, lists of topic filters that then hold instead of the rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    /// How tokens are signed.
    pub algorithm: TokenAlgorithm,
    /// The file with the secret or the public key.
    pub key: PathBuf,
    /// The `iss` that a token must carry.
    pub issuer: Option<String>,
    /// The `aud` that a token must carry.
    pub audience: Option<String>,
}

/// What a token says.
#[derive(Debug, Deserialize)]
pub(crate) struct Claims {
    pub(crate) sub: String,
    pub(crate) publish: Option<Vec<String>>,
    pub(crate) subscribe: Option<Vec<String>>,
}

/// Checks tokens.
pub(crate) struct Tokens {
    key: DecodingKey,
    validation: Validation,
}

impl Tokens {
    pub(crate) fn open(settings: &TokenSettings) -> Result<Self> {
        let wrong = |error: &dyn std::fmt::Display| {
            Error::config(format!(
                "the key of the MQTT tokens '{}' cannot be used: {error}",
                settings.key.display()
            ))
        };
        let bytes = std::fs::read(&settings.key).map_err(|error| wrong(&error))?;
        let (key, algorithm) = match settings.algorithm {
            TokenAlgorithm::Hs256 => {
                let secret = bytes.trim_ascii();
                if secret.len() < 32 {
                    return Err(wrong(&"the secret is shorter than 32 bytes"));
                }
                (DecodingKey::from_secret(secret), Algorithm::HS256)
            }
            TokenAlgorithm::Rs256 => {
                (DecodingKey::from_rsa_pem(&bytes).map_err(|error| wrong(&error))?, Algorithm::RS256)
            }
        };
        let mut validation = Validation::new(algorithm);
        validation.validate_nbf = true;
        let mut required = vec!["exp", "sub"];
        if let Some(issuer) = &settings.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        match &settings.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                required.push("aud");
            }
            None => validation.validate_aud = false,
        }
        validation.set_required_spec_claims(&required);
        Ok(Self { key, validation })
    }

    /// What a token says, when it is valid now.
    pub(crate) fn check(&self, token: &[u8]) -> Option<Claims> {
        match decode::<Claims>(token, &self.key, &self.validation) {
            Ok(data) => Some(data.claims),
            Err(error) => {
                tracing::debug!(%error, "a token was refused");
                None
            }
        }
    }
}
