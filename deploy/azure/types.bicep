// Types that main.bicep and its modules share. They have a file of their own because an import counts as a dependency:
// a module that imports from the file that uses it is a cycle (BCP095).

@export()
@description('One deployment of a model.')
type deploymentType = {
  @description('The name in callers\' paths and in gateway.toml.')
  name: string
  model: string
  version: string
  @description('The provisioned ones are paid by the hour and the unit, used or not.')
  sku: 'Standard' | 'GlobalStandard' | 'DataZoneStandard' | 'ProvisionedManaged' | 'GlobalProvisionedManaged' | 'DataZoneProvisionedManaged'
  @description('Thousands of tokens a minute; provisioned throughput units where the SKU is a provisioned one.')
  capacity: int
  @description('Content filter: a policy of the account or one of Microsoft\'s. Without it Microsoft.DefaultV2.')
  raiPolicyName: string?
  @description('Without it OnceCurrentVersionExpired: prices change with versions, and gateway.toml names prices.')
  versionUpgradeOption: ('NoAutoUpgrade' | 'OnceCurrentVersionExpired' | 'OnceNewDefaultVersionAvailable')?
}
