"""
The addresses at which clouds serve the metadata of their machines, which often holds keys.

The list is of 2026-11-29. A cloud that is not in it uses 169.254.169.254 only, or a name of its own. The
configuration file adds addresses (``[sets.metadata]``).
"""

from __future__ import annotations

from typing import NamedTuple


class MetadataService(NamedTuple):
    """
    One address of a service.

    :ivar address: the literal address.
    :ivar clouds: the clouds that use it.
    :ivar source: the page that says so.
    """

    address: str
    clouds: str
    source: str


_AWS = "https://docs.aws.amazon.com"
_CLOUD_INIT = "https://docs.cloud-init.io/en/latest/reference/datasources"

METADATA_SERVICES = (
    MetadataService(
        "169.254.169.254",
        "Amazon, Azure, Google, Oracle, DigitalOcean, Hetzner, Huawei, IBM, OpenStack, Vultr and most others",
        f"{_AWS}/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html",
    ),
    MetadataService(
        "fd00:ec2::254", "Amazon", f"{_AWS}/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html"
    ),
    MetadataService(
        "169.254.170.2",
        "Amazon, tasks in containers",
        f"{_AWS}/AmazonECS/latest/developerguide/task-metadata-endpoint.html",
    ),
    MetadataService(
        "169.254.170.23",
        "Amazon, identities of pods",
        f"{_AWS}/eks/latest/userguide/pod-id-how-it-works.html",
    ),
    MetadataService(
        "fd00:ec2::23", "Amazon, identities of pods", f"{_AWS}/eks/latest/userguide/pod-id-how-it-works.html"
    ),
    MetadataService(
        "168.63.129.16",
        "Azure, the host agent",
        "https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16",
    ),
    MetadataService(
        "fd20:ce::254", "Google", "https://cloud.google.com/compute/docs/metadata/querying-metadata"
    ),
    MetadataService(
        "fd00:c1::a9fe:a9fe",
        "Oracle",
        "https://docs.oracle.com/en-us/iaas/Content/Compute/Tasks/gettingmetadata.htm",
    ),
    MetadataService(
        "192.0.0.192",
        "Oracle, the classic cloud",
        "https://docs.oracle.com/en/cloud/iaas/compute-iaas-cloud/stcsg/retrieving-instance-metadata.html",
    ),
    MetadataService(
        "fd00:a9fe:a9fe::1",
        "Akamai (Linode)",
        "https://techdocs.akamai.com/cloud-computing/docs/metadata-service-api",
    ),
    MetadataService(
        "100.100.100.200",
        "Alibaba",
        "https://www.alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata",
    ),
    MetadataService("fd00:100::100:200", "Alibaba", "https://github.com/canonical/cloud-init/pull/6893"),
    MetadataService(
        "fe80::a9fe:a9fe",
        "OpenStack, Hetzner, Akamai",
        "https://specs.openstack.org/openstack/neutron-specs/specs/ussuri/metadata-add-ipv6-support.html",
    ),
    MetadataService("169.254.42.42", "Scaleway", f"{_CLOUD_INIT}/scaleway.html"),
    MetadataService("fd00:42::42", "Scaleway", f"{_CLOUD_INIT}/scaleway.html"),
    MetadataService("169.254.0.23", "Tencent", "https://www.tencentcloud.com/document/product/213/4934"),
    MetadataService("169.254.10.10", "Tencent", "https://www.tencentcloud.com/document/product/213/4934"),
    MetadataService("100.96.0.96", "Volcengine, BytePlus", "https://www.volcengine.com/docs/6396/113780"),
    MetadataService("100.80.80.80", "UCloud", "https://docs.ucloud.cn/uhost/guide/metadata/metadata-server"),
)
