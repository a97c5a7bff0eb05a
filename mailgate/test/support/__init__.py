"""What the tests share: fakes, certificates, datagrams."""
