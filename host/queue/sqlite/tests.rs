//! What only the inside can see: failed commits, full disks, faulty statements.
