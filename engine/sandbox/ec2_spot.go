package sandbox

import (
	"slices"
	"time"
)

// spotRequest is a one-time request, made and fulfilled by RunInstances.
type spotRequest struct {
	ID, Account, Region string
	Instance, Type, AMI string
	Zone, Price         string
	// State is active, closed or cancelled; Status says why.
	State, Status string
	Created       time.Time
	Changed       time.Time
}

func (c *call) keepSpot(l launch, i *instance) string {
	price := c.p.sub("InstanceMarketOptions").sub("SpotOptions").str("MaxPrice")
	if price == "" {
		price = l.typ.spotPrice()
	}
	r := &spotRequest{ID: newID(kindSpot.prefix), Account: c.account, Region: c.region, Instance: i.ID, Type: i.Type, AMI: i.ImageID,
		Zone: i.Zone, Price: price, State: "active", Status: "fulfilled", Created: c.now, Changed: c.now}
	c.s.spots.put(r.ID, r)
	c.setTags(r.ID, kindSpot.typ, l.tags[kindSpot.typ])
	c.born(r.ID)
	return r.ID
}

// endSpot closes the request of an instance that ends.
func (s *Server) endSpot(i *instance, state, status string) {
	r := s.spots.get(i.SpotRequest)
	if r == nil || r.State == "closed" {
		return
	}
	if r.State != "cancelled" {
		r.State = state
	}
	r.Status, r.Changed = status, s.now()
	s.spots.put(r.ID, r)
}

func describeSpotInstanceRequests(c *call) (answer, error) {
	at, err := c.page(5, 1000, "SpotInstanceRequestIds")
	if err != nil {
		return nil, err
	}
	match, err := matcher(c, getters[spotRequest]{
		"spot-instance-request-id":   one(func(r *spotRequest) string { return r.ID }),
		"instance-id":                one(func(r *spotRequest) string { return r.Instance }),
		"state":                      one(func(r *spotRequest) string { return r.State }),
		"status-code":                one(func(r *spotRequest) string { return r.Status }),
		"launched-availability-zone": one(func(r *spotRequest) string { return r.Zone }),
		"launch.instance-type":       one(func(r *spotRequest) string { return r.Type }),
		"launch.image-id":            one(func(r *spotRequest) string { return r.AMI }),
		"type":                       one(func(*spotRequest) string { return "one-time" }),
	}, func(r *spotRequest) string { return r.ID })
	if err != nil {
		return nil, err
	}
	see := func(r *spotRequest) bool { return c.mine(r.Account, r.Region) }
	found, err := pickAll(c, kindSpot, c.s.spots, c.p.texts("SpotInstanceRequestIds"), see, match)
	if err != nil {
		return nil, err
	}
	found, token := cut(c, at, found, func(r *spotRequest) string { return r.ID })
	out := answer{"SpotInstanceRequests": list(found, func(r *spotRequest) any {
		return answer{"SpotInstanceRequestId": r.ID, "InstanceId": r.Instance, "State": r.State, "SpotPrice": r.Price, "Type": "one-time",
			"CreateTime": r.Created, "LaunchedAvailabilityZone": r.Zone, "ProductDescription": "Linux/UNIX",
			"InstanceInterruptionBehavior": "terminate", "Tags": tagList(c.tagsOf(r.ID)),
			"Status":              answer{"Code": r.Status, "Message": "The request is " + r.State + ".", "UpdateTime": r.Changed},
			"LaunchSpecification": answer{"ImageId": r.AMI, "InstanceType": r.Type}}
	})}
	set(out, "NextToken", token)
	return out, nil
}

// cancelSpotInstanceRequests leaves the instances running, as AWS does.
func cancelSpotInstanceRequests(c *call) (answer, error) {
	ids := c.p.texts("SpotInstanceRequestIds")
	for _, id := range ids {
		if err := kindSpot.check(id); err != nil {
			return nil, err
		}
		if r := c.s.spots.get(id); r == nil || !c.mine(r.Account, r.Region) {
			return nil, kindSpot.notFound(id)
		}
	}
	out := []any{}
	for _, id := range ids {
		r := c.s.spots.get(id)
		if r.State == "active" {
			r.State, r.Status, r.Changed = "cancelled", "request-canceled-and-instance-running", c.now
			c.s.spots.put(id, r)
		}
		out = append(out, answer{"SpotInstanceRequestId": id, "State": r.State})
	}
	return answer{"CancelledSpotInstanceRequests": out}, nil
}

// price of a type in a zone; it never changes.
type price struct{ typ, zone, product, dollars string }

func describeSpotPriceHistory(c *call) (answer, error) {
	at, err := c.page(1, 1000, "")
	if err != nil {
		return nil, err
	}
	match, err := matcher(c, getters[price]{
		"availability-zone":   one(func(p *price) string { return p.zone }),
		"instance-type":       one(func(p *price) string { return p.typ }),
		"product-description": one(func(p *price) string { return p.product }),
		"spot-price":          one(func(p *price) string { return p.dollars }),
	}, nil)
	if err != nil {
		return nil, err
	}
	types, products := c.p.texts("InstanceTypes"), c.p.texts("ProductDescriptions")
	r, _ := findRegion(c.region)
	var found []price
	for _, t := range allTypes() {
		for _, z := range r.allZones() {
			p := price{t.name, z.name, "Linux/UNIX", t.spotPrice()}
			asked := (len(types) == 0 || slices.Contains(types, t.name)) &&
				(len(products) == 0 || slices.Contains(products, p.product) || slices.Contains(products, "Linux/UNIX (Amazon VPC)")) &&
				(!c.p.has("AvailabilityZone") || c.p.str("AvailabilityZone") == z.name)
			if asked && t.offered(z) && match(&p) {
				found = append(found, p)
			}
		}
	}
	found, token := cut(c, at, found, func(p price) string { return p.typ + " " + p.zone })
	return answer{"NextToken": token, "SpotPriceHistory": list(found, func(p price) any {
		return answer{"AvailabilityZone": p.zone, "InstanceType": p.typ, "ProductDescription": p.product, "SpotPrice": p.dollars,
			"Timestamp": c.now.Truncate(time.Hour)}
	})}, nil
}
