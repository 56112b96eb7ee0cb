package sandbox

import (
	"context"
	"time"
)

// moveInstance ends the pending state of an instance; see [Server.settle].
func (s *Server) moveInstance(i *instance, now time.Time) bool {
	if i == nil {
		return true
	}
	if !i.Interrupt.IsZero() && i.alive() && !now.Before(i.Interrupt) {
		s.endInstance(i, now, "Server.SpotInstanceTermination", "Server.SpotInstanceTermination: Instance terminated by spot interruption")
		s.endSpot(i, "closed", "instance-terminated-no-capacity")
		return false
	}
	if i.State == "terminated" {
		if now.Sub(i.Ended) < terminatedFor {
			return false
		}
		s.instances.remove(i.ID)
		s.setTags(i.Account, i.Region, i.ID, kindInstance.typ, nil)
		return true
	}
	if i.Stuck || now.Before(i.Due) {
		return false
	}
	switch i.State {
	case "pending":
		i.State = "running"
	case "stopping":
		i.State = "stopped"
	case "shutting-down":
		s.terminated(i, now)
		return false
	}
	s.instances.put(i.ID, i)
	return i.Interrupt.IsZero()
}

// terminated gives up what an instance had.
func (s *Server) terminated(i *instance, now time.Time) {
	i.State, i.Ended = "terminated", now
	for _, v := range s.attached(i) {
		if v.Delete {
			s.dropVolume(v)
			continue
		}
		v.Instance, v.Device, v.Attached, v.State = "", "", time.Time{}, "available"
		s.volumes.put(v.ID, v)
	}
	s.setTags(i.Account, i.Region, i.Interface, kindInterface.typ, nil)
	delete(s.imds, i.ID)
	s.instances.put(i.ID, i)
}

// endInstance begins to terminate an instance.
func (s *Server) endInstance(i *instance, now time.Time, code, message string) {
	i.State, i.Due, i.Stuck = "shutting-down", s.due(now, instanceEnds), false
	i.ReasonCode, i.ReasonMessage = code, message
	i.Transition = "User initiated (" + now.Format("2006-01-02 15:04:05") + " GMT)"
	s.instances.put(i.ID, i)
	s.moving[i.ID] = true
	s.cancelWork(i.ID)
	s.enqueue(func(context.Context) { s.killMachine(i.ID) }, i.ID)
}

// stateChange is how Start, Stop and Terminate tell of an instance.
func stateChange(i *instance, before string) answer {
	return answer{"InstanceId": i.ID, "CurrentState": stateAnswer(i.State), "PreviousState": stateAnswer(before)}
}

// named returns the instances of InstanceIds, all of which must be there.
func (c *call) namedInstances() ([]*instance, error) {
	ids := c.p.texts("InstanceIds")
	if len(ids) == 0 {
		return nil, missing("InstanceId")
	}
	var out []*instance
	seen := map[string]bool{}
	for _, id := range ids {
		i, err := c.instance(id)
		if err != nil {
			return nil, err
		}
		if !seen[id] {
			out = append(out, i)
		}
		seen[id] = true
	}
	return out, nil
}

func terminateInstances(c *call) (answer, error) {
	all, err := c.namedInstances()
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if i.NoTermination && i.alive() {
			return nil, fail("OperationNotPermitted", "The instance '%s' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.", i.ID)
		}
	}
	out := []any{}
	for _, i := range all {
		before := i.State
		if i.alive() {
			c.s.endInstance(i, c.now, "Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")
			c.s.endSpot(i, "closed", "instance-terminated-by-user")
		}
		out = append(out, stateChange(i, before))
	}
	return answer{"TerminatingInstances": out}, nil
}

func stopInstances(c *call) (answer, error) {
	all, err := c.namedInstances()
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		switch {
		case i.NoStop:
			return nil, fail("OperationNotPermitted", "The instance '%s' may not be stopped. Modify its 'disableApiStop' instance attribute and try again.", i.ID)
		case i.SpotRequest != "":
			return nil, fail("UnsupportedOperation", "You can't stop the Spot Instance '%s' because it is associated with a one-time Spot Instance request. You can only stop Spot Instances associated with persistent Spot Instance requests.", i.ID)
		case i.State == "pending", !i.alive():
			return nil, fail("IncorrectInstanceState", "The instance '%s' is not in a state from which it can be stopped.", i.ID)
		}
	}
	out := []any{}
	for _, i := range all {
		before := i.State
		if i.State == "running" {
			c.s.beginStop(i, c.now, "Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")
			force := c.p.yes("Force")
			c.s.enqueue(func(ctx context.Context) {
				if force {
					c.s.killMachine(i.ID)
				} else {
					c.s.shutDown(ctx, i.ID)
				}
			}, i.ID)
		}
		out = append(out, stateChange(i, before))
	}
	return answer{"StoppingInstances": out}, nil
}

// beginStop makes an instance one that stops, when its work is done and its time has come.
func (s *Server) beginStop(i *instance, now time.Time, code, message string) {
	i.State, i.Due = "stopping", s.due(now, instanceStops)
	i.ReasonCode, i.ReasonMessage = code, message
	i.Transition = "User initiated (" + now.Format("2006-01-02 15:04:05") + " GMT)"
	s.instances.put(i.ID, i)
	s.moving[i.ID] = true
}

func startInstances(c *call) (answer, error) {
	all, err := c.namedInstances()
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if i.State != "stopped" && i.State != "running" && i.State != "pending" {
			return nil, fail("IncorrectInstanceState", "The instance '%s' is not in a state from which it can be started.", i.ID)
		}
		if i.State != "stopped" {
			continue
		}
		t, ok := findType(i.Type)
		if f, full := c.has(Capacity); full {
			return nil, noCapacity(i.Type, i.Zone, f)
		}
		if ok {
			if err := c.cpuQuota(t, 1, false); err != nil {
				return nil, err
			}
		}
		if disks := c.s.attached(i); len(disks) == 0 || disks[0].Device != i.RootDevice {
			return nil, fail("IncorrectInstanceState", "Instance '%s' does not have a volume attached at root (%s)", i.ID, i.RootDevice)
		}
	}
	out := []any{}
	for _, i := range all {
		before := i.State
		if i.State == "stopped" {
			i.State, i.Started, i.Due = "pending", c.now, c.s.due(c.now, instancePending)
			i.ReasonCode, i.ReasonMessage, i.Transition = "", "", ""
			i.Machine = c.s.cfg.Machines != nil
			i.Address = c.s.newAddress()
			c.s.instances.put(i.ID, i)
			c.s.moving[i.ID] = true
			c.s.startMachine(i)
		}
		out = append(out, stateChange(i, before))
	}
	return answer{"StartingInstances": out}, nil
}

func rebootInstances(c *call) (answer, error) {
	all, err := c.namedInstances()
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if i.State != "running" && i.State != "pending" {
			return nil, fail("IncorrectInstanceState", "The instance '%s' is not in a state from which it can be rebooted.", i.ID)
		}
	}
	for _, i := range all {
		c.s.enqueue(func(ctx context.Context) { c.s.rebootMachine(ctx, i.ID) }, i.ID)
	}
	return answer{}, nil
}
