//! The key pair of the client machine.
//!
//! It is made here and only its public half goes to EC2: so the private half is on disk and
//! in Parameter Store before AWS knows of it, and no kill in between can lose it.

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

use crate::base::error::{Error, ErrorContext, Result, io_error};
use crate::clients::aws::call::{Call, code, failed};
use crate::provision::aws::context::Account;
use crate::provision::aws::ec2_tags::{pairs, put_tags, tag_specification};
use crate::provision::aws::keys;
use crate::provision::aws::parameter;
use crate::provision::resource::{Observation, Resource};

const KEY: &str = keys::KEY_PAIR;

pub struct KeyPair {
    pub account: Rc<Account>,
}

impl KeyPair {
    fn display_name(&self) -> String {
        format!("key pair `{}`", self.name())
    }

    fn path(&self) -> PathBuf {
        let config = &self.account.config;
        if !config.client.key_file.as_os_str().is_empty() {
            return config.client.key_file.clone();
        }
        config
            .data_dir
            .join("aws")
            .join(format!("{}.pem", self.name()))
    }

    /// Where the private half is kept in Parameter Store.
    fn parameter(&self) -> String {
        format!("/pinpipe/{}/key-pair", self.account.config.id)
    }

    async fn find(&self) -> Result<Option<KeyPairInfo>> {
        match self
            .account
            .ec2
            .describe_key_pairs()
            .key_names(self.name())
            .send()
            .await
        {
            Ok(found) => Ok(found.key_pairs().first().cloned()),
            Err(error) if code(&error) == "InvalidKeyPair.NotFound" => Ok(None),
            Err(error) => Err(failed(
                Call("ec2:DescribeKeyPairs", &self.display_name()),
                &error,
            )),
        }
    }

    /// The private half: from the file, else from Parameter Store, else made now. Both
    /// places hold it afterwards.
    async fn private(&self) -> Result<SecretString> {
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
                    "move the file away to take the key of Parameter Store; neither was changed",
                ));
            }
            (Some(key), _) | (None, Some(key)) => key.clone(),
            (None, None) => made()?,
        };
        // What is no key is not kept as if it were one.
        public(&key).map_err(|error| {
            Error::failed(format!("`{}` holds no key of pinpipe's", path.display()))
                .with_source(error)
                .hint("move the file away, or name another one in `client.key_file`; it was not touched")
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

    /// Readable by nobody but its owner from the first moment on, and never written over.
    fn write(&self, key: &SecretString) -> Result<()> {
        let path = self.path();
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            std::fs::create_dir_all(folder).map_err(|error| io_error("make", folder, error))?;
        }
        // Whole or not at all: half a key would be taken for the key by the next run.
        let draft = path.with_extension("pem.new");
        let _ = std::fs::remove_file(&draft);
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&draft);
        let written = file.and_then(|mut file| {
            file.write_all(key.expose_secret().as_bytes())
                .and_then(|()| file.sync_all())
        });
        written.map_err(|error| io_error("write", &draft, error))?;
        // Unlike renaming, a link is refused where something is there already.
        std::fs::hard_link(&draft, &path).map_err(|error| io_error("write", &path, error))?;
        std::fs::remove_file(&draft).map_err(|error| io_error("remove", &draft, error))
    }
}

/// A new RSA key, in the form that ssh and everything else reads.
fn made() -> Result<SecretString> {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).context(|| "cannot make an RSA key")?;
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).context(|| "cannot write an RSA key")?;
    let body = STANDARD.encode(der.as_ref());
    let mut text = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    Ok(text.into())
}

/// The public half in OpenSSH's format, as EC2 takes it.
fn public(private: &SecretString) -> Result<String> {
    let body: String = private
        .expose_secret()
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let no_key = || "the private key is not one that pinpipe made".to_string();
    let der = STANDARD.decode(body).context(no_key)?;
    let pair = RsaKeyPair::from_pkcs8(&der).context(no_key)?;
    let public =
        AsDer::<PublicKeyX509Der<'_>>::as_der(aws_lc_rs::signature::KeyPair::public_key(&pair))
            .context(no_key)?;
    let (modulus, exponent) = numbers(public.as_ref()).ok_or_else(|| Error::failed(no_key()))?;
    let mut blob = Vec::new();
    for part in [b"ssh-rsa".as_slice(), exponent, modulus] {
        // No part of a key is longer than a u32 can say.
        blob.extend((part.len() as u32).to_be_bytes());
        blob.extend(part);
    }
    Ok(format!("ssh-rsa {} pinpipe", STANDARD.encode(blob)))
}

/// Modulus and exponent of a public RSA key (X.509 SubjectPublicKeyInfo, RFC 5280 and
/// RFC 8017), in the form that SSH takes too: big-endian, with a sign.
fn numbers(public: &[u8]) -> Option<(&[u8], &[u8])> {
    let (info, _) = element(public)?;
    let (_, after_algorithm) = element(info)?;
    let (bits, _) = element(after_algorithm)?;
    // The first byte counts unused bits, of which there are none.
    let (key, _) = element(bits.get(1..)?)?;
    let (modulus, rest) = element(key)?;
    let (exponent, _) = element(rest)?;
    Some((modulus, exponent))
}

/// The content of the first DER element, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, start) = match *der.get(1)? {
        short @ 0..=0x7f => (usize::from(short), 2),
        long => {
            let bytes = usize::from(long & 0x7f);
            let digits = der.get(2..2 + bytes)?;
            (
                digits
                    .iter()
                    .fold(0, |length, digit| length << 8 | usize::from(*digit)),
                2 + bytes,
            )
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

    async fn read(&self) -> Result<Observation> {
        let Some(found) = self.find().await? else {
            // The private half may have been kept by a run that got no further.
            let exists = parameter::description(&self.account, &self.parameter())
                .await?
                .is_some();
            return Ok(Observation {
                exists,
                ..Observation::missing()
            });
        };
        if !self.account.is_ours(pairs(found.tags())) {
            return Ok(Observation::unmanaged());
        }
        let mut differences = self.account.tag_differences(KEY, pairs(found.tags()));
        let (is_on_disk, is_stored) = (
            self.path().exists(),
            parameter::description(&self.account, &self.parameter())
                .await?
                .is_some(),
        );
        match (is_on_disk, is_stored) {
            (true, true) => {
                let lacking =
                    parameter::tag_differences(&self.account, KEY, &self.parameter()).await?;
                differences.extend(
                    lacking
                        .into_iter()
                        .map(|text| format!("{text} on its parameter")),
                );
            }
            (false, true) => differences.push(format!(
                "`{}` is missing: it comes back from Parameter Store",
                self.path().display()
            )),
            (true, false) => {
                differences.push(format!("the parameter `{}` is missing", self.parameter()))
            }
            (false, false) => {
                return Ok(Observation::replace(vec![
                    "its private half is lost".into(),
                ]));
            }
        }
        Ok(Observation::from_drift(
            differences,
            self.path().display().to_string(),
        ))
    }

    async fn create(&self) -> Result<()> {
        let public = public(&self.private().await?)?;
        let tags = tag_specification(&self.account, KEY, ResourceType::KeyPair);
        let material = aws_sdk_ec2::primitives::Blob::new(public.into_bytes());
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
            Err(error) => Err(failed(
                Call("ec2:ImportKeyPair", &self.display_name()),
                &error,
            )),
        }
    }

    async fn update(&self) -> Result<()> {
        self.private().await?;
        if !parameter::tag_differences(&self.account, KEY, &self.parameter())
            .await?
            .is_empty()
        {
            parameter::put_tags(&self.account, KEY, &self.parameter()).await?;
        }
        let Some(found) = self.find().await? else {
            return Ok(());
        };
        if !self
            .account
            .tag_differences(KEY, pairs(found.tags()))
            .is_empty()
        {
            put_tags(&self.account, KEY, found.key_pair_id().unwrap_or_default()).await?;
        }
        Ok(())
    }

    async fn delete(&self) -> Result<bool> {
        let found = self.find().await?;
        if found
            .as_ref()
            .is_some_and(|found| !self.account.is_ours(pairs(found.tags())))
        {
            return Ok(false);
        }
        let was_kept = parameter::delete(&self.account, &self.parameter()).await?;
        if found.is_none() && !was_kept {
            return Ok(false);
        }
        // What a run that was killed in the middle of writing left.
        let _ = std::fs::remove_file(self.path().with_extension("pem.new"));
        match std::fs::remove_file(self.path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("remove", &self.path(), error));
            }
            _ => {}
        }
        let removed = self
            .account
            .ec2
            .delete_key_pair()
            .key_name(self.name())
            .send()
            .await;
        removed
            .map(|_| true)
            .map_err(|error| failed(Call("ec2:DeleteKeyPair", &self.display_name()), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_has_a_public_half() {
        let private = made().expect("a key is made");
        assert!(
            private
                .expose_secret()
                .starts_with("-----BEGIN PRIVATE KEY-----\n")
        );
        assert!(private.expose_secret().lines().all(|line| line.len() <= 64));
        let public = public(&private).expect("it is read back");
        let blob = STANDARD
            .decode(public.split(' ').nth(1).expect("a key"))
            .expect("base64");
        // Name, exponent 65537, and a modulus of 2048 bits with a zero before its highest one.
        assert!(
            blob.starts_with(b"\0\0\0\x07ssh-rsa\0\0\0\x03\x01\0\x01\0\0\x01\x01\0"),
            "{blob:?}"
        );
        assert!(super::public(&SecretString::from("not a key")).is_err());
    }
}
