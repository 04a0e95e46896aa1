//! The key pair of the client machine.
//!
//! The key is generated on this machine, and only the public key is sent to EC2. The private key is
//! on disk and in Parameter Store before the key pair exists in EC2, so it is not lost if pinpipe
//! is killed.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::rc::Rc;

use async_trait::async_trait;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_sdk_ec2::types::{KeyPairInfo, ResourceType};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use crate::base::config::data_dir::DataEntry;
use crate::base::error::{Error, ErrorContext, Result, io_error};
use crate::clients::aws::call::{CallContext, code};
use crate::provision::aws::context::Account;
use crate::provision::aws::ec2_tags::{pairs, put_tags, tag_specification};
use crate::provision::aws::keys;
use crate::provision::aws::parameter;
use crate::provision::resource::{Observation, Resource};
use crate::provision::state::output::ObservedOutputs;

const KEY: &str = keys::KEY_PAIR;

pub struct KeyPair {
    pub account: Rc<Account>,
}

impl KeyPair {
    fn display_name(&self) -> String {
        format!("key pair `{}`", self.name())
    }

    /// Path of the private key on disk: `client.key_file`, or a file in the data folder.
    fn path(&self) -> PathBuf {
        let config = &self.account.config;
        if !config.client.key_file.as_os_str().is_empty() {
            return config.client.key_file.clone();
        }
        DataEntry::Aws.path(&config.data_dir).join(format!("{}.pem", self.name()))
    }

    /// Name of the parameter with the private key in Parameter Store.
    fn parameter(&self) -> String {
        format!("/pinpipe/{}/key-pair", self.account.config.id)
    }

    async fn find(&self) -> Result<Option<KeyPairInfo>> {
        match self.account.ec2.describe_key_pairs().key_names(self.name()).send().await {
            Ok(response) => Ok(response.key_pairs().first().cloned()),
            Err(error) if code(&error) == "InvalidKeyPair.NotFound" => Ok(None),
            Err(error) => Err(error.call_context("ec2:DescribeKeyPairs", &self.display_name())),
        }
    }

    /// Returns the private key from the file or Parameter Store, or generates it. Afterwards, both
    /// the file and the parameter contain it.
    ///
    /// # Errors
    /// File and parameter contain different keys, or a key that pinpipe did not create; one of them
    /// cannot be read or written.
    async fn private_key(&self) -> Result<SecretString> {
        let path = self.path();
        let on_disk = match std::fs::read_to_string(&path) {
            Ok(text) => Some(SecretString::from(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error("read", &path, error)),
        };
        let stored = parameter::get(&self.account, &self.parameter()).await?;
        let key = match (&on_disk, &stored) {
            (Some(on_disk), Some(stored))
                if on_disk.expose_secret().trim() != stored.expose_secret().trim() =>
            {
                return Err(Error::failed(format!(
                    "`{}` and the parameter `{}` hold different keys",
                    path.display(),
                    self.parameter()
                ))
                .hint(
                    "move the file away to use the key from Parameter Store; neither key was \
                     changed",
                ));
            }
            (Some(key), _) | (None, Some(key)) => key.clone(),
            (None, None) => generate()?,
        };
        // The content of the file is not stored in Parameter Store unless it is a key.
        public_key(&key).map_err(|error| {
            Error::failed(format!("`{}` is not a private key created by pinpipe", path.display()))
                .with_source(error)
                .hint(
                    "move the file away or set `client.key_file` to another file; the file was not \
                 changed",
                )
        })?;
        if on_disk.is_none() {
            self.write(&key)?;
        }
        if stored.is_none() {
            let description = "private key of pinpipe's client machine";
            parameter::put(&self.account, KEY, &self.parameter(), &key, description).await?;
        }
        Ok(key)
    }

    /// Writes the private key to its file. From the start, only the owner can read the file. An
    /// existing file is never overwritten.
    fn write(&self, key: &SecretString) -> Result<()> {
        let path = self.path();
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| io_error("create", folder, error))?;
        }
        // Written atomically, because the next run would use an incomplete file as the key.
        let temporary = path.with_extension("pem.new");
        let _ = std::fs::remove_file(&temporary);
        let file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&temporary);
        let result = file.and_then(|mut file| {
            file.write_all(key.expose_secret().as_bytes()).and_then(|()| file.sync_all())
        });
        result.map_err(|error| io_error("write", &temporary, error))?;
        // Unlike a rename, a hard link fails if the path already exists.
        std::fs::hard_link(&temporary, &path).map_err(|error| io_error("write", &path, error))?;
        std::fs::remove_file(&temporary).map_err(|error| io_error("delete", &temporary, error))
    }
}

/// Generates an RSA key of 2048 bits, as PKCS #8 in PEM, which ssh and other tools read.
fn generate() -> Result<SecretString> {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).context(|| "cannot generate an RSA key")?;
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).context(|| "cannot encode the RSA key")?;
    let body = STANDARD.encode(der.as_ref());
    let mut text = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    Ok(text.into())
}

/// Returns the public key in OpenSSH's format, which EC2 accepts.
fn public_key(private: &SecretString) -> Result<String> {
    let body: String =
        private.expose_secret().lines().filter(|line| !line.starts_with("-----")).collect();
    let unknown_key = || "the private key was not created by pinpipe".to_string();
    let der = STANDARD.decode(body).context(unknown_key)?;
    let pair = RsaKeyPair::from_pkcs8(&der).context(unknown_key)?;
    let public =
        AsDer::<PublicKeyX509Der<'_>>::as_der(aws_lc_rs::signature::KeyPair::public_key(&pair))
            .context(unknown_key)?;
    let (modulus, exponent) =
        numbers(public.as_ref()).ok_or_else(|| Error::failed(unknown_key()))?;
    let mut blob = Vec::new();
    for part in [b"ssh-rsa".as_slice(), exponent, modulus] {
        // The length of every part of a key fits into a u32.
        blob.extend((part.len() as u32).to_be_bytes());
        blob.extend(part);
    }
    Ok(format!("ssh-rsa {} pinpipe", STANDARD.encode(blob)))
}

/// Returns modulus and exponent of a public RSA key (X.509 SubjectPublicKeyInfo, RFC 5280 and
/// RFC 8017), big-endian and signed. SSH uses the same encoding.
fn numbers(public: &[u8]) -> Option<(&[u8], &[u8])> {
    let (info, _) = element(public)?;
    let (_, after_algorithm) = element(info)?;
    let (bits, _) = element(after_algorithm)?;
    // The first byte is the number of unused bits, always 0.
    let (key, _) = element(bits.get(1..)?)?;
    let (modulus, rest) = element(key)?;
    let (exponent, _) = element(rest)?;
    Some((modulus, exponent))
}

/// Returns the content of the first DER element and the bytes after it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, start) = match *der.get(1)? {
        short @ 0..=0x7f => (usize::from(short), 2),
        long => {
            let bytes = usize::from(long & 0x7f);
            let digits = der.get(2..2 + bytes)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), 2 + bytes)
        }
    };
    Some((der.get(start..start + length)?, der.get(start + length..)?))
}

#[async_trait(?Send)]
impl Resource for KeyPair {
    fn key(&self) -> String {
        KEY.into()
    }

    fn kind(&self) -> &'static str {
        "key-pair"
    }

    fn name(&self) -> String {
        self.account.named("key")
    }

    async fn observe(&self, _observed: &mut ObservedOutputs) -> Result<Observation> {
        let Some(key_pair) = self.find().await? else {
            // An interrupted run may have stored the private key.
            let exists = parameter::description(&self.account, &self.parameter()).await?.is_some();
            return Ok(Observation { exists, ..Observation::missing() });
        };
        if !self.account.is_managed(pairs(key_pair.tags())) {
            return Ok(Observation::unmanaged());
        }
        let mut differences = self.account.tag_differences(KEY, pairs(key_pair.tags()));
        let (is_on_disk, is_stored) = (
            self.path().exists(),
            parameter::description(&self.account, &self.parameter()).await?.is_some(),
        );
        match (is_on_disk, is_stored) {
            (true, true) => {
                let tag_differences =
                    parameter::tag_differences(&self.account, KEY, &self.parameter()).await?;
                differences.extend(
                    tag_differences
                        .into_iter()
                        .map(|tag| format!("the parameter's {}", tag.text).into()),
                );
            }
            (false, true) => differences.push(
                format!(
                    "`{}` is missing: it is restored from Parameter Store",
                    self.path().display()
                )
                .into(),
            ),
            (true, false) => {
                differences.push(format!("the parameter `{}` is missing", self.parameter()).into())
            }
            (false, false) => {
                return Ok(Observation::not_updatable(vec!["the private key is lost"]));
            }
        }
        Ok(Observation::compared(differences, self.path().display().to_string()))
    }

    async fn create(&self) -> Result<()> {
        let public_key = public_key(&self.private_key().await?)?;
        let tags = tag_specification(&self.account, KEY, ResourceType::KeyPair);
        let material = aws_sdk_ec2::primitives::Blob::new(public_key.into_bytes());
        let request = self
            .account
            .ec2
            .import_key_pair()
            .key_name(self.name())
            .public_key_material(material)
            .tag_specifications(tags);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if code(&error) == "InvalidKeyPair.Duplicate" => Ok(()),
            Err(error) => Err(error.call_context("ec2:ImportKeyPair", &self.display_name())),
        }
    }

    async fn update(&self) -> Result<()> {
        self.private_key().await?;
        if !parameter::tag_differences(&self.account, KEY, &self.parameter()).await?.is_empty() {
            parameter::put_tags(&self.account, KEY, &self.parameter()).await?;
        }
        let Some(key_pair) = self.find().await? else {
            return Ok(());
        };
        if !self.account.tag_differences(KEY, pairs(key_pair.tags())).is_empty() {
            put_tags(&self.account, KEY, key_pair.key_pair_id().unwrap_or_default()).await?;
        }
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        let key_pair = self.find().await?;
        if key_pair
            .as_ref()
            .is_some_and(|key_pair| !self.account.is_managed(pairs(key_pair.tags())))
        {
            return Ok(false);
        }
        let was_stored = parameter::delete(&self.account, &self.parameter()).await?;
        if key_pair.is_none() && !was_stored {
            return Ok(false);
        }
        // The temporary file of a run that was killed while writing.
        let _ = std::fs::remove_file(self.path().with_extension("pem.new"));
        match std::fs::remove_file(self.path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("delete", &self.path(), error));
            }
            _ => {}
        }
        let response = self.account.ec2.delete_key_pair().key_name(self.name()).send().await;
        response.map(|_| true).call_context("ec2:DeleteKeyPair", &self.display_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_the_public_key_of_a_generated_key() {
        let private = generate().expect("a key is generated");
        assert!(private.expose_secret().starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert!(private.expose_secret().lines().all(|line| line.len() <= 64));
        let public = public_key(&private).expect("the key is parsed");
        let blob = STANDARD.decode(public.split(' ').nth(1).expect("a key")).expect("base64");
        // Name, exponent 65537, and a modulus of 2048 bits after a zero byte.
        assert!(
            blob.starts_with(b"\0\0\0\x07ssh-rsa\0\0\0\x03\x01\0\x01\0\0\x01\x01\0"),
            "{blob:?}"
        );
        assert!(public_key(&SecretString::from("not a key")).is_err());
    }
}
