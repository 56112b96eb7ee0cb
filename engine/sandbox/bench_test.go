package sandbox_test

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/gildhq/gild/engine/sandbox"
)

// full is a sandbox with 5,000 images.
func full(b *testing.B) *world {
	w := open(b, sandbox.Config{Quotas: sandbox.Quotas{VCPUs: 1 << 30}})
	for n := range 5000 {
		_, err := w.AddImage(b.Context(), sandbox.SeedImage{Account: publisher, Name: fmt.Sprintf("image-%04d", n), Region: sandbox.DefaultRegion})
		must(b, err)
	}
	return w
}

func BenchmarkDescribeImages(b *testing.B) {
	c := full(b).mine(b)
	for name, in := range map[string]ec2.DescribeImagesInput{
		"all of 5000":   {},
		"page of 100":   {MaxResults: aws.Int32(100)},
		"one by name":   {Owners: []string{publisher}, Filters: []types.Filter{filter("name", "image-42*7")}},
		"none by owner": {Owners: []string{"self"}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.DescribeImages(b.Context(), &in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRunInstances(b *testing.B) {
	w := open(b, sandbox.Config{Quotas: sandbox.Quotas{VCPUs: 1 << 30}})
	c := w.mine(b)
	base := w.seed(b, "base")
	b.ReportAllocs()
	for b.Loop() {
		out, err := c.RunInstances(b.Context(), runInput(base))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := c.TerminateInstances(b.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{*out.Instances[0].InstanceId}}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateTags(b *testing.B) {
	w := open(b, sandbox.Config{})
	c := w.mine(b)
	i := run(b, c, w.seed(b, "base"))
	for n := 0; b.Loop(); n++ {
		_, err := c.CreateTags(b.Context(), &ec2.CreateTagsInput{Resources: []string{*i.InstanceId}, Tags: []types.Tag{{Key: aws.String("n"), Value: aws.String(fmt.Sprint(n))}}})
		must(b, err)
	}
}
