"""abbot-proto: the messages by which hosts are told about their networks (generated), and their envelope."""
