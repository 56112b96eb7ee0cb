package sandbox

import (
	"context"
	"errors"
	"sync"
)

// services is the state of every service but EC2.
type services struct {
	roles       *table[role]
	profiles    *table[instanceProfile]
	kmsKeys     *table[kmsKey]
	aliases     *table[alias]
	parameters  *table[parameter]
	managed     *table[managedInstance]
	commands    *table[command]
	invocations *table[invocation]
	uploads     *table[upload]
	// writing is held for reading by who writes a block, and for writing by who seals a
	// snapshot or gives it the bytes of its parent. Server.mu may be taken inside it.
	writing sync.RWMutex
}

func openServices(ctx context.Context, st *store) (*services, error) {
	s := &services{}
	var errs [9]error
	s.roles, errs[0] = openTable[role](ctx, st, "iam-role")
	s.profiles, errs[1] = openTable[instanceProfile](ctx, st, "iam-instance-profile")
	s.kmsKeys, errs[2] = openTable[kmsKey](ctx, st, "kms-key")
	s.aliases, errs[3] = openTable[alias](ctx, st, "kms-alias")
	s.parameters, errs[4] = openTable[parameter](ctx, st, "ssm-parameter")
	s.managed, errs[5] = openTable[managedInstance](ctx, st, "ssm-managed-instance")
	s.commands, errs[6] = openTable[command](ctx, st, "ssm-command")
	s.invocations, errs[7] = openTable[invocation](ctx, st, "ssm-invocation")
	s.uploads, errs[8] = openTable[upload](ctx, st, "ebs-upload")
	return s, errors.Join(errs[:]...)
}

// addServices makes the server answer for the services besides EC2. It is called before the
// server is shared.
func (s *Server) addServices() {
	s.operations["ebs"] = ebsOperations()
	s.operations["ssm"] = ssmOperations()
	s.operations["sts"] = stsOperations()
	s.operations["iam"] = iamOperations()
	s.operations["kms"] = kmsOperations()
	s.operations["ec2-instance-connect"] = instanceConnectOperations()
	s.findProfile = s.profileOf
	s.policyOf = s.policiesOf
	s.findKey = s.keyOf
	s.invoked, s.meeting, s.working = map[string]context.CancelFunc{}, map[string]bool{}, map[string]int{}
	s.recoverUploads()
	s.endLostInvocations()
}

// quick makes operations of handlers that wait for nothing.
func quick(handlers map[string]func(*call) (answer, error)) map[string]operation {
	out := map[string]operation{}
	for action, run := range handlers {
		out[action] = operation{run: run}
	}
	return out
}
