// Package sandbox is an EC2-compatible endpoint to rehearse pipelines on: the query
// protocol of EC2, and EBS direct, SSM, STS, KMS, IAM and EC2 Instance Connect as far as
// gild uses them, over HTTP, for any AWS SDK or command line.
//
// It keeps truthful state in a folder: accounts and regions, images with all their
// attributes, snapshots and volumes with real bytes, instances that are real machines
// ([Machines]), idempotency tokens, pending states on a clock that can be turned, pages,
// quotas, and faults on demand. What it doesn't do as AWS does is listed in LIMITS.md.
//
// It is no security boundary between its users, and never calls AWS.
package sandbox
