package conformance

// checks are all there is, in the order in which they are made: each may count on what
// those before it found, and the ones that end processes come last.
func checks() []check {
	return []check{
		{"starts", "it starts and describes itself in time", checkStarts},
		{"handshake", "its first line is the handshake, exactly", checkHandshake},
		{"health", "the health service says that it is serving", checkHealth},
		{"describe", "it describes itself the same in every process", checkDescribe},
		{"names", "names, version, sections and outputs are valid", checkNames},
		{"schema", "each schema compiles, describes every field and allows no others", checkSchemas},
		{"docs", "each step's help has a YAML example that its schema accepts", checkDocs},
		{"configs", "good configs are accepted, and bad ones refused at the right place", checkConfigs},
		{"validate", "validation gives the same answer twice, without a machine", checkValidate},
		{"key-parts", "what it adds to the key is the same in every process", checkKeyParts},
		{"unknown-step", "a step that it doesn't have is an error, not a crash", checkUnknownStep},
		{"broken-config", "a config that isn't what its schema says is an error, not a crash", checkBrokenConfig},
		{"runs", "the runs of the fixtures end as they should", checkRuns},
		{"result", "a run ends with one result, and its outputs are as declared", checkResult},
		{"cancel", "a run that is cancelled ends within the grace", checkCancel},
		{"side-by-side", "two runs at the same time don't mix their logs", checkSideBySide},
		{"cleanup", "cleaning up twice is no error", checkCleanup},
		{"bounded", "memory and open files stay bounded over 100 calls", checkBounded},
		{"interrupt", "Ctrl-C on gild's terminal doesn't end it", checkInterrupt},
		{"shutdown", "it ends within 2 s of being asked to", checkShutdown},
		{"orphan", "it ends when gild is gone", checkOrphan},
		{"leftovers", "it leaves no process and no socket behind", checkLeftovers},
		{"stdout", "nothing but the handshake is on its standard output", checkStdout},
		{"secrets", "secrets show in no log, output or message", checkSecrets},
		{"host", "gild itself runs it, with its limits", checkHost},
	}
}
