"""Makes the life of an image through botocore, for TestBotocoreLife: every call that gild makes.

Arguments are the sandbox's address and the id of a base image in the region below. botocore validates every call
by its own models; what the answers must say is asserted here. Nothing is left at the end.
"""

import base64
import json
import sys
import time

import botocore.config
import botocore.exceptions
import botocore.session

REGION, OTHER = "eu-central-1", "us-west-2"
TAGS = [{"Key": "gild:run", "Value": "r1"}, {"Key": "gild:pipeline", "Value": "web"}]
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl gild"
TRUST = json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"},
    {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:root"}, "Action": "sts:AssumeRole"}]})
CORE = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"


def client(session, service, url, region=REGION):
    config = botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=60)
    return session.create_client(service, region, endpoint_url=url, config=config)


def ask(client, method, newer, **params):
    """Makes a call; newer are parameters that older models, such as Debian 12's, don't have."""
    model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method])
    params.update((k, v) for k, v in newer.items() if k in model.input_shape.members)
    return getattr(client, method)(**params)


def tagged(*types):
    return [{"ResourceType": t, "Tags": TAGS} for t in types]


def until(what, holds):
    deadline = time.monotonic() + 120
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.1)


def wait(client, what, **which):
    client.get_waiter(what).wait(WaiterConfig={"Delay": 0.2, "MaxAttempts": 600}, **which)


def refused(code, call, **params):
    try:
        call(**params)
    except botocore.exceptions.ClientError as e:
        assert e.response["Error"]["Code"] == code, e
        return e
    raise AssertionError(code + " didn't come")


class Life:
    def __init__(self, url, base):
        session = botocore.session.Session()
        session.set_credentials("sandbox", "sandbox")
        self.url, self.base = url, base
        for service in ("ec2", "iam", "ssm", "sts", "kms"):
            setattr(self, service, client(session, service, url))
        self.connect = client(session, "ec2-instance-connect", url)
        self.far = client(session, "ec2", url, OTHER)

    def look(self):
        assert self.sts.get_caller_identity()["Account"] == "111122223333"
        assert REGION in [r["RegionName"] for r in self.ec2.describe_regions(AllRegions=True)["Regions"]]
        self.vpc = self.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]
        subnets = self.ec2.get_paginator("describe_subnets").paginate(Filters=[{"Name": "vpc-id", "Values": [self.vpc]}])
        self.subnet = subnets.build_full_result()["Subnets"][0]
        offers = self.ec2.get_paginator("describe_instance_type_offerings").paginate(
            LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["t3.micro"]}])
        assert offers.build_full_result()["InstanceTypeOfferings"]
        types = self.ec2.get_paginator("describe_instance_types").paginate(InstanceTypes=["t3.micro"])
        assert types.build_full_result()["InstanceTypes"][0]["InstanceType"] == "t3.micro"
        image = self.ec2.describe_images(Owners=["136693071363"], IncludeDeprecated=True, Filters=[{"Name": "image-id", "Values": [self.base]}])["Images"][0]
        self.root = image["RootDeviceName"]
        assert self.ssm.get_parameter(Name="/aws/service/debian/release/12/latest/amd64")["Parameter"]["Value"] == self.base
        assert self.kms.describe_key(KeyId="alias/aws/ebs")["KeyMetadata"]["KeyState"] == "Enabled"

    def arm(self):
        self.iam.create_role(RoleName="gild-1", Path="/gild/", AssumeRolePolicyDocument=TRUST, Tags=TAGS)
        self.iam.attach_role_policy(RoleName="gild-1", PolicyArn=CORE)
        self.iam.create_instance_profile(InstanceProfileName="gild-1", Path="/gild/", Tags=TAGS)
        self.iam.add_role_to_instance_profile(InstanceProfileName="gild-1", RoleName="gild-1")
        role = self.iam.get_role(RoleName="gild-1")["Role"]
        assert self.iam.get_instance_profile(InstanceProfileName="gild-1")["InstanceProfile"]["Roles"][0]["Arn"] == role["Arn"]
        assert [r["RoleName"] for r in self.iam.list_roles(PathPrefix="/gild/")["Roles"]] == ["gild-1"]
        assert [p["InstanceProfileName"] for p in self.iam.list_instance_profiles(PathPrefix="/gild/")["InstanceProfiles"]] == ["gild-1"]
        assert len(self.iam.list_role_tags(RoleName="gild-1")["Tags"]) == 2
        assert len(self.iam.list_instance_profile_tags(InstanceProfileName="gild-1")["Tags"]) == 2
        said = self.iam.simulate_principal_policy(
            PolicySourceArn=role["Arn"], ActionNames=["ssm:UpdateInstanceInformation", "ec2:RunInstances"], ResourceArns=["*"],
            ContextEntries=[{"ContextKeyName": "aws:RequestedRegion", "ContextKeyType": "string", "ContextKeyValues": [REGION]}])
        assert [r["EvalDecision"] for r in said["EvaluationResults"]] == ["allowed", "implicitDeny"]
        session = self.sts.assume_role(RoleArn=role["Arn"], RoleSessionName="session")["Credentials"]
        assumed = botocore.session.Session()
        assumed.set_credentials(session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"])
        e = refused("UnauthorizedOperation", client(assumed, "ec2", self.url).describe_regions)
        encoded = e.response["Error"]["Message"].rpartition(": ")[2]
        decoded = json.loads(self.sts.decode_authorization_message(EncodedMessage=encoded)["DecodedMessage"])
        assert decoded["context"]["action"] == "ec2:DescribeRegions", decoded

    def launch(self):
        self.ec2.import_key_pair(KeyName="gild-1", PublicKeyMaterial=PUBLIC_KEY, TagSpecifications=tagged("key-pair"))
        self.group = self.ec2.create_security_group(
            GroupName="gild-1", Description="d", VpcId=self.vpc, TagSpecifications=tagged("security-group"))["GroupId"]
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.1/32", "Description": "gild"}]}])
        ask = {
            "ImageId": self.base, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, "ClientToken": "t1", "KeyName": "gild-1",
            "UserData": "#cloud-config\n", "IamInstanceProfile": {"Name": "gild-1"}, "SubnetId": self.subnet["SubnetId"], "SecurityGroupIds": [self.group],
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 1},
            "BlockDeviceMappings": [{"DeviceName": self.root, "Ebs": {"VolumeType": "gp3", "DeleteOnTermination": True, "Encrypted": True, "KmsKeyId": "alias/aws/ebs"}}],
            "InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}},
            "TagSpecifications": tagged("instance", "volume", "network-interface", "spot-instances-request"),
        }
        refused("DryRunOperation", self.ec2.run_instances, DryRun=True, **ask)
        self.id = self.ec2.run_instances(**ask)["Instances"][0]["InstanceId"]
        assert self.ec2.run_instances(**ask)["Instances"][0]["InstanceId"] == self.id
        refused("IdempotentParameterMismatch", self.ec2.run_instances, **{**ask, "UserData": "other"})
        wait(self.ec2, "instance_running", InstanceIds=[self.id])
        ours = [{"Name": "tag:gild:run", "Values": ["r1"]}]
        for describe, what in (
            (self.ec2.describe_instances, "Reservations"), (self.ec2.describe_volumes, "Volumes"), (self.ec2.describe_key_pairs, "KeyPairs"),
            (self.ec2.describe_security_groups, "SecurityGroups"), (self.ec2.describe_spot_instance_requests, "SpotInstanceRequests"),
        ):
            found = describe(Filters=ours)[what]
            assert len(found) == 1, (what, found)
        request = self.ec2.describe_spot_instance_requests(Filters=ours)["SpotInstanceRequests"][0]["SpotInstanceRequestId"]
        assert self.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request])["CancelledSpotInstanceRequests"][0]["State"] == "cancelled"

    def work(self):
        who = [{"Key": "InstanceIds", "Values": [self.id]}]
        until("the agent", lambda: [i["PingStatus"] for i in self.ssm.describe_instance_information(Filters=who)["InstanceInformationList"]] == ["Online"])

        def send(*lines):
            return self.ssm.send_command(DocumentName="AWS-RunShellScript", InstanceIds=[self.id], TimeoutSeconds=60,
                                         Parameters={"commands": list(lines), "executionTimeout": ["600"]})["Command"]["CommandId"]

        def told(command):
            try:
                return self.ssm.get_command_invocation(CommandId=command, InstanceId=self.id)
            except self.ssm.exceptions.InvocationDoesNotExist:
                return {"Status": "Pending"}

        done = send("echo it\\'s done", "echo bad >&2")
        until("the command", lambda: told(done)["Status"] == "Success")
        assert told(done)["StandardOutputContent"] == "it's done\n", told(done)
        hangs = send("sleep 600")
        until("the long command", lambda: told(hangs)["Status"] == "InProgress")
        self.ssm.cancel_command(CommandId=hangs, InstanceIds=[self.id])
        until("its end", lambda: told(hangs)["Status"] == "Cancelled")
        assert self.connect.send_ssh_public_key(
            InstanceId=self.id, InstanceOSUser="admin", SSHPublicKey=PUBLIC_KEY, AvailabilityZone=self.subnet["AvailabilityZone"])["Success"]
        assert "Output" in self.ec2.get_console_output(InstanceId=self.id)
        self.ec2.reboot_instances(InstanceIds=[self.id])

    def publish(self):
        # A one-time spot instance can't be stopped, so this one is imaged as it runs.
        self.image = self.ec2.create_image(InstanceId=self.id, Name="web-1", NoReboot=True, TagSpecifications=tagged("image", "snapshot"))["ImageId"]
        wait(self.ec2, "image_available", ImageIds=[self.image])
        snapshot = self.ec2.describe_images(ImageIds=[self.image])["Images"][0]["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
        assert self.ec2.describe_snapshots(OwnerIds=["self"], SnapshotIds=[snapshot])["Snapshots"][0]["State"] == "completed"
        self.registered = ask(
            self.ec2, "register_image", {"TagSpecifications": tagged("image")}, Name="web-2", Architecture="x86_64", VirtualizationType="hvm", EnaSupport=True, BootMode="uefi-preferred", ImdsSupport="v2.0", TpmSupport="v2.0",
            RootDeviceName=self.root,
            BlockDeviceMappings=[{"DeviceName": self.root, "Ebs": {"SnapshotId": snapshot, "VolumeType": "gp3", "DeleteOnTermination": True}}])["ImageId"]
        self.ec2.create_tags(Resources=[self.registered, snapshot], Tags=[{"Key": "gild:kind", "Value": "published"}])
        self.ec2.delete_tags(Resources=[self.registered], Tags=[{"Key": "gild:run"}])
        self.ec2.modify_image_attribute(ImageId=self.registered, Description={"Value": "new"})
        self.ec2.modify_image_attribute(ImageId=self.registered, LaunchPermission={"Add": [{"UserId": "444455556666"}]})
        self.ec2.enable_image_deprecation(ImageId=self.registered, DeprecateAt="2030-01-01T00:00:00Z")
        image = self.ec2.describe_images(ImageIds=[self.registered])["Images"][0]
        assert (image["Description"], image["DeprecationTime"][:10], image["BootMode"]) == ("new", "2030-01-01", "uefi-preferred"), image
        self.copy = ask(self.far, "copy_image", {"TagSpecifications": tagged("image", "snapshot")}, Name="web-1",
                        SourceImageId=self.image, SourceRegion=REGION, ClientToken="c1", Encrypted=True)["ImageId"]
        wait(self.far, "image_available", ImageIds=[self.copy])

    def clean(self):
        self.ec2.modify_instance_attribute(InstanceId=self.id, InstanceInitiatedShutdownBehavior={"Value": "terminate"})
        self.stop_another()
        self.ec2.terminate_instances(InstanceIds=[self.id])
        wait(self.ec2, "instance_terminated", InstanceIds=[self.id])
        for ec2, images in ((self.ec2, [self.image, self.registered]), (self.far, [self.copy])):
            found = ec2.describe_images(ImageIds=images)["Images"]
            for image in images:
                ec2.deregister_image(ImageId=image)
            for snapshot in {m["Ebs"]["SnapshotId"] for i in found for m in i["BlockDeviceMappings"]}:
                ec2.delete_snapshot(SnapshotId=snapshot)
            refused("InvalidAMIID.NotFound", ec2.describe_images, ImageIds=images)
        self.ec2.delete_security_group(GroupId=self.group)
        self.ec2.delete_key_pair(KeyName="gild-1")
        self.iam.remove_role_from_instance_profile(InstanceProfileName="gild-1", RoleName="gild-1")
        self.iam.detach_role_policy(RoleName="gild-1", PolicyArn=CORE)
        self.iam.delete_instance_profile(InstanceProfileName="gild-1")
        self.iam.delete_role(RoleName="gild-1")
        assert not self.iam.list_roles(PathPrefix="/gild/")["Roles"]

    def stop_another(self):
        """An instance whose volume stays behind, as one does that gild gc finds."""
        other = self.ec2.run_instances(
            ImageId=self.base, InstanceType="t3.micro", MinCount=1, MaxCount=1,
            BlockDeviceMappings=[{"DeviceName": self.root, "Ebs": {"DeleteOnTermination": False}}])["Instances"][0]["InstanceId"]
        wait(self.ec2, "instance_running", InstanceIds=[other])
        self.ec2.stop_instances(InstanceIds=[other], Force=True)
        wait(self.ec2, "instance_stopped", InstanceIds=[other])
        self.ec2.modify_instance_attribute(InstanceId=other, EnaSupport={"Value": True})
        # botocore encodes user data of RunInstances itself, and attributes as they are.
        self.ec2.modify_instance_attribute(InstanceId=other, UserData={"Value": base64.b64encode(b"none")})
        volume = self.ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [other]}])["Volumes"][0]["VolumeId"]
        self.ec2.terminate_instances(InstanceIds=[other])
        wait(self.ec2, "instance_terminated", InstanceIds=[other])
        self.ec2.delete_volume(VolumeId=volume)


def main():
    life = Life(*sys.argv[1:])
    for part in (life.look, life.arm, life.launch, life.work, life.publish, life.clean):
        part()


main()
