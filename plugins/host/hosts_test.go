package host

const childHostEnv = "GILD_TEST_HOST"

func serveHost() {}
