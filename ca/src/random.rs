//! Randomness, from the kernel and from nowhere else: seeds, serial numbers, nonces.

use std::io;

use rand::TryRng;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

/// The machine has none to give.
#[derive(Debug, thiserror::Error)]
#[error("get randomness from the kernel")]
pub struct NoRandomness(#[source] io::Error);

/// `N` bytes, cleared when they go.
///
/// # Errors
/// [`NoRandomness`].
pub fn secret<const N: usize>() -> Result<Zeroizing<[u8; N]>, NoRandomness> {
    let mut bytes = Zeroizing::new([0; N]);
    SysRng
        .try_fill_bytes(bytes.as_mut_slice())
        .map_err(|cause| NoRandomness(io::Error::other(cause)))?;
    Ok(bytes)
}

/// `N` bytes that everybody may see.
///
/// # Errors
/// [`NoRandomness`].
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    secret().map(|bytes| *bytes)
}

/// A serial number: 63 bits, as OpenSSH's readers in other languages can hold.
///
/// # Errors
/// [`NoRandomness`].
pub fn serial() -> Result<u64, NoRandomness> {
    bytes().map(|bytes| u64::from_le_bytes(bytes) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_the_same_and_a_serial_has_63_bits() {
        assert_ne!(bytes::<32>().unwrap(), bytes::<32>().unwrap());
        let serials: Vec<u64> = (0..64).map(|_| serial().unwrap()).collect();
        assert!(serials.iter().all(|serial| *serial < 1 << 63));
        assert!(serials.iter().any(|serial| *serial >= 1 << 60));
    }
}
