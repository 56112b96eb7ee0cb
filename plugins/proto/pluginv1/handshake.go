package pluginv1

// The handshake between gild and a plugin; see plugin.proto.
const (
	// Version is the version of the protocol that this package holds.
	Version = 1
	// CookieKey and CookieValue are the variable that tells a plugin that gild started it.
	CookieKey   = "GILD_PLUGIN"
	CookieValue = "gild-step-plugin"
	// PluginName is the name of the service among go-plugin's plugins of one process.
	PluginName = "step"
	// TokenMetadata is the metadata that calls to Machine and Host carry.
	TokenMetadata = "gild-token"
	// ParentEnv names the variable with gild's process id.
	ParentEnv = "GILD_PARENT"
)
