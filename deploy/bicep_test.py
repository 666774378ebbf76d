"""What `bicep` finds: each fault is put into a copy of the files, which have none."""

import shutil
import sys
import tempfile
import unittest
from pathlib import Path

import bicep

AZURE = Path(__file__).parent / "azure"

# File, what is replaced, what stands there instead, and what is said of it.
FAULTS = [
    (
        "modules/openai.bicep",
        "'../types.bicep'",
        "'../main.bicep'",
        "a cycle of imports and modules: main.bicep → openai.bicep → main.bicep",
    ),
    (
        "main.bicep",
        "'modules/private.bicep'",
        "'modules/public.bicep'",
        "main.bicep names public.bicep, which is missing",
    ),
    (
        "types.bicep",
        "@export()\n",
        "",
        "main.bicep imports deploymentType, which types.bicep does not export",
    ),
    (
        "main.bicep",
        "param budgetStart string",
        "param budgetStart string = utcNow('yyyy-MM-01')",
        "main.bicep: utcNow makes each deployment another one",
    ),
    (
        "example.bicepparam",
        "param budgetStart =",
        "// ",
        "example.bicepparam lacks budgetStart",
    ),
    (
        "main.bicep",
        "    zoneId: privateDnsZoneId\n",
        "",
        "main.bicep, private lacks zoneId",
    ),
    (
        "main.bicep",
        "openai.outputs.id\n    subnetId",
        "openai.outputs.key\n    subnetId",
        "main.bicep: openai.bicep has no output key",
    ),
    (
        "main.bicep",
        "accountId: openai",
        "accountId: opemai",
        "main.bicep: opemai is not declared",
    ),
    (
        "modules/openai.bicep",
        "param tags object",
        "param tags object\nparam colour string = ''",
        "openai.bicep: colour is not used",
    ),
    (
        "modules/openai.bicep",
        "deployment.?raiPolicyName ?? 'Microsoft.DefaultV2'",
        "deployment.raiPolicyName",
        "openai.bicep: deployment.raiPolicyName may be missing",
    ),
    (
        "modules/openai.bicep",
        "deployment.capacity",
        "deployment.units",
        "openai.bicep: deploymentType has no units",
    ),
    (
        "modules/openai.bicep",
        "defenderForAISettings@2024-10-01",
        "defenderForAI@2024-10-01",
        "openai.bicep, defender: no library describes Microsoft.CognitiveServices/accounts/defenderForAI@2024-10-01",
    ),
    (
        "modules/private.bicep",
        "privateDnsZones@2024-06-01",
        "privateDnsZones@2024-06-31",
        "private.bicep, zone: no library describes Microsoft.Network/privateDnsZones@2024-06-31",
    ),
    (
        "modules/openai.bicep",
        "versionUpgradeOption:",
        "versionUpgrade:",
        "openai.bicep, models: properties.versionUpgrade is no property",
    ),
    (
        "modules/openai.bicep",
        "        id: id\n",
        "        key: id\n",
        "openai.bicep, account: properties.networkAcls.virtualNetworkRules.key is no property",
    ),
    (
        "modules/openai.bicep",
        "customSubDomainName:",
        "endpoint:",
        "openai.bicep, account: properties.endpoint can only be read",
    ),
    (
        "modules/monitoring.bicep",
        "          operator: 'GreaterThan'\n",
        "",
        "monitoring.bicep, tokens: properties.criteria.allOf[].operator is missing",
    ),
    (
        "modules/monitoring.bicep",
        "        threshold: 90\n",
        "        limit: 90\n",
        "monitoring.bicep, budget: properties.notifications.nearly.limit is no property",
    ),
    (
        "modules/identity.bicep",
        "identity.properties.clientId",
        "identity.properties.client",
        "identity.bicep, identity has no properties.client",
    ),
    (
        "modules/access.bicep",
        "  name: accountName\n",
        "  name: accountName\n  kind: 'OpenAI'\n",
        "access.bicep, account: kind is not asked for an existing resource",
    ),
    (
        "modules/access.bicep",
        "  scope: account\n",
        "  scope: account }\n",
        "access.bicep:",
    ),
]


class Faults(unittest.TestCase):
    def found(self, folder: Path) -> list[str]:
        problems = []
        bicep.check(folder, lambda holds, problem: holds or problems.append(problem))
        return problems

    def test_the_files_have_none(self) -> None:
        self.assertEqual(self.found(AZURE), [])

    def test_each_is_found(self) -> None:
        for name, right, wrong, expected in FAULTS:
            with self.subTest(name=name, wrong=wrong), tempfile.TemporaryDirectory() as folder:
                copy = Path(shutil.copytree(AZURE, Path(folder) / "azure"))
                source = (copy / name).read_text()
                self.assertIn(right, source)
                (copy / name).write_text(source.replace(right, wrong))
                found = self.found(copy)
                self.assertTrue(any(problem.startswith(expected) for problem in found), found)


if __name__ == "__main__":
    sys.exit(unittest.main())
