#![no_main]

hostel_fuzz_targets::program!(hostel_discovery::fuzz::ETCD_RECORDS);
