//! What simulators are made of: a disk that fails when it is told to, a log without threads over it, random numbers
//! that a seed gives again.

pub mod disk;
mod random;
pub mod stepped;

pub use self::random::Random;
